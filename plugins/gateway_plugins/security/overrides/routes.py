"""`/security/override`: grant, list and revoke what is allowed for a time.

It keeps nothing: `overrides.py` does. Whether the caller may is asked of `granter` before a body is read.

The plugin mounts these among its admin routes, with a `granter` that returns the authenticated admin, and the audit
log's `settled` as `recorded`.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import GatewayError, NotFoundError, PermissionDeniedError, Principal, described
from gateway_plugins.security.access_query import Override
from gateway_plugins.security.json_body import json_object, json_response
from gateway_plugins.security.overrides.grant_request import parse_grant
from gateway_plugins.security.overrides.manager import OverrideManager

Granter = Callable[[Request], Awaitable[Principal]]
"""Who asks; raises a `GatewayError` for anybody who may not even look."""

_GRANT = {
    "type": "object",
    "required": ["kind", "pattern", "reason"],
    "additionalProperties": False,
    "properties": {
        "kind": {"enum": ["agent", "module", "tool"]},
        "ttl_seconds": {"type": "number", "exclusiveMinimum": 0},
        **{name: {"type": "string", "minLength": 1} for name in ("pattern", "principal", "key", "reason")},
    },
}


async def _nowhere() -> None:
    """Where changes are not put on record."""


def override_routes(
    store: OverrideManager, granter: Granter, recorded: Callable[[], Awaitable[None]] = _nowhere
) -> list[BaseRoute]:
    """The routes.

    Args:
        store: What is in force.
        granter: Asked on each request.
        recorded: Returns when what was announced is on record; raises a `GatewayError` when it cannot be.
    """
    handlers = _Handlers(store, granter, recorded)
    return [
        Route("/security/override", handlers.grant, methods=["POST"]),
        Route("/security/override", handlers.list, methods=["GET"]),
        Route("/security/override/{id}", handlers.one, methods=["GET"]),
        Route("/security/override/{id}", handlers.revoke, methods=["DELETE"]),
    ]


class _Handlers:
    def __init__(self, store: OverrideManager, granter: Granter, recorded: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._granter = granter
        self._recorded = recorded

    @described("Allow something for a time", takes=_GRANT, status=201)
    async def grant(self, request: Request) -> Response:
        principal = await self._may_change(request)
        grant = parse_grant(await json_object(request), principal.id)
        override = await self._store.grant(grant, principal.id)
        try:
            await self._recorded()
        except GatewayError:
            await self._store.revoke(override.id, principal.id)
            raise
        return json_response(_shown(override, override.expires - override.created), 201)

    @described("What is allowed for a time at this moment")
    async def list(self, request: Request) -> Response:
        await self._granter(request)
        shown = [_shown(override, left) for override, left in self._store.active()]
        return json_response({"object": "list", "data": shown})

    @described("One override that is in force")
    async def one(self, request: Request) -> Response:
        await self._granter(request)
        for override, left in self._store.active():
            if override.id == request.path_params["id"]:
                return json_response(_shown(override, left))
        raise _not_there()

    @described("Revoke an override")
    async def revoke(self, request: Request) -> Response:
        principal = await self._may_change(request)
        override = await self._store.revoke(request.path_params["id"], principal.id)
        if override is None:
            raise _not_there()
        await self._recorded()
        return json_response({"id": override.id, "object": "security.override.deleted", "deleted": True})

    async def _may_change(self, request: Request) -> Principal:
        principal = await self._granter(request)
        allowed = self._store.settings.granters
        if allowed and principal.id not in allowed:
            raise PermissionDeniedError(
                f"'{principal.id}' may not grant or revoke overrides", hint="`granters` lists who may"
            )
        return principal


def _shown(override: Override, left: float) -> dict[str, Any]:
    return {"object": "security.override", **asdict(override), "seconds_left": round(left, 3)}


def _not_there() -> NotFoundError:
    return NotFoundError("no override of this id is in force", code="override_not_found")
