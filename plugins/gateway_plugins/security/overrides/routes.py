"""Routes below `/security/override` that grant, list and revoke overrides.

Overrides are held in `overrides/manager.py`. `granter` authorizes the caller before the body is read.

The plugin mounts the routes as admin routes, with a `granter` that returns the authenticated admin, and the audit log's
`settled` as `recorded`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import (
    GatewayError,
    NotFoundError,
    PermissionDeniedError,
    Principal,
    described,
    json_response,
    read_json,
)
from gateway_plugins.security.access_query import Override
from gateway_plugins.security.overrides.grant_request import parse_grant
from gateway_plugins.security.overrides.manager import OverrideManager

Granter = Callable[[Request], Awaitable[Principal]]
"""Returns the caller; raises a `GatewayError` for a caller without access to these routes."""

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


class OverrideRoutes:
    """The routes.

    Args:
        store: The overrides.
        granter: Called on each request.
        recorded: Waits until announced events are in the audit log; raises a `GatewayError` if they cannot be written.
    """

    def __init__(self, store: OverrideManager, granter: Granter, recorded: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._granter = granter
        self._recorded = recorded
        self.routes: Sequence[BaseRoute] = (
            Route("/security/override", self.grant, methods=["POST"]),
            Route("/security/override", self.list, methods=["GET"]),
            Route("/security/override/{id}", self.one, methods=["GET"]),
            Route("/security/override/{id}", self.revoke, methods=["DELETE"]),
        )

    @described("Grant an override", takes=_GRANT, status=201)
    async def grant(self, request: Request) -> Response:
        """Grant an override."""
        principal = await self._may_change(request)
        grant = parse_grant(await read_json(request), principal.id)
        override = await self._store.grant(grant, principal.id)
        try:
            await self._recorded()
        except GatewayError:
            await self._store.revoke(override.id, principal.id)
            raise
        return json_response(_shown(override, override.expires - override.created), 201)

    @described("List the active overrides")
    async def list(self, request: Request) -> Response:
        """List the active overrides."""
        await self._granter(request)
        shown = [_shown(override, left) for override, left in self._store.active()]
        return json_response({"object": "list", "data": shown})

    @described("Get an active override")
    async def one(self, request: Request) -> Response:
        """Return an active override."""
        await self._granter(request)
        for override, left in self._store.active():
            if override.id == request.path_params["id"]:
                return json_response(_shown(override, left))
        raise _not_found()

    @described("Revoke an override")
    async def revoke(self, request: Request) -> Response:
        """Revoke an override."""
        principal = await self._may_change(request)
        override = await self._store.revoke(request.path_params["id"], principal.id)
        if override is None:
            raise _not_found()
        await self._recorded()
        return json_response({"id": override.id, "object": "security.override.deleted", "deleted": True})

    async def _may_change(self, request: Request) -> Principal:
        principal = await self._granter(request)
        allowed = self._store.settings.granters
        if allowed and principal.id not in allowed:
            raise PermissionDeniedError(
                f"'{principal.id}' may not grant or revoke overrides",
                hint="`granters` in [plugins.security.overrides] lists the principals that may",
            )
        return principal


def _shown(override: Override, left: float) -> dict[str, Any]:
    return {"object": "security.override", **asdict(override), "seconds_left": round(left, 3)}


def _not_found() -> NotFoundError:
    return NotFoundError("no active override has this id", code="override_not_found")
