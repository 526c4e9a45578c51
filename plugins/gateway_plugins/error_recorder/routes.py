"""Admin endpoints `/admin/agents/errors`: list and clear the recorded errors."""

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from attrs import asdict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import InvalidRequestError, NotFoundError, described, json_response
from gateway_plugins.error_recorder.ring_buffer import ErrorRing, RecordedError

MAX_LIMIT = 1000
_FILTERS: dict[str, dict[str, Any]] = {
    **{name: {"type": "string"} for name in ("agent", "stage", "request_id")},
    "since": {
        "anyOf": [
            {"type": "number"},
            {
                "type": "string",
                "pattern": r"^20\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$",
            },
        ]
    },
    **{name: {"type": "integer", "minimum": 0, "maximum": 999_999_999} for name in ("offset", "limit")},
}


def error_routes(ring: ErrorRing, changed: Callable[[], None]) -> Iterable[BaseRoute]:
    """Returns the routes.

    Args:
        ring: The recorded errors.
        changed: Called after the errors were cleared.
    """

    @described("List recorded errors, most recent first", query=_FILTERS)
    async def errors(request: Request) -> Response:
        query = request.query_params
        since = _timestamp(given) if (given := query.get("since")) is not None else 0.0
        wanted = [error for error in ring.entries() if error.last_seen >= since and _matches(error, request)]
        offset, limit = _number(query.get("offset"), "offset", 0), _number(query.get("limit"), "limit", 100)
        page = wanted[offset : offset + min(limit, MAX_LIMIT)]
        return json_response({"total": len(wanted), "offset": offset, "errors": [asdict(error) for error in page]})

    @described("Delete all recorded errors", status=204)
    async def clear(_: Request) -> Response:
        ring.clear()
        changed()
        return Response(status_code=204)

    @described("List the recorded errors of a request")
    async def of_request(request: Request) -> Response:
        request_id = request.path_params["request_id"]
        found = [asdict(error) for error in ring.entries() if request_id in error.request_ids]
        if not found:
            raise NotFoundError(
                f"no error is recorded for the request '{request_id[:128]}'",
                code="error_not_found",
                hint="the request did not fail, or newer errors have replaced it",
            )
        return json_response({"request_id": request_id, "errors": found})

    return [
        Route("/admin/agents/errors", errors),
        Route("/admin/agents/errors", clear, methods=["DELETE"]),
        Route("/admin/agents/errors/{request_id}", of_request),
    ]


def _matches(error: RecordedError, request: Request) -> bool:
    query = request.query_params
    agent, stage = query.get("agent"), query.get("stage")
    request_id = query.get("request_id")
    return (
        (agent is None or (error.agent_id or "").casefold() == agent.casefold())
        and (stage is None or error.stage == stage)
        and (request_id is None or request_id in error.request_ids)
    )


def _timestamp(text: str) -> float:
    try:
        if math.isfinite(moment := float(text)):
            return moment
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequestError(
            "'since' must be a Unix timestamp or an ISO 8601 time such as 2026-11-23T07:00:00Z", param="since"
        ) from None


def _number(text: str | None, name: str, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequestError(f"'{name}' must be a non-negative integer", param=name)
    return int(text)
