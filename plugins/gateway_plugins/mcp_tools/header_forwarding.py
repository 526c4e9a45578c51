"""Collects the request headers that `forward_headers` allows, so that calls to MCP servers can send them.

A context variable carries the headers from the request to its run. No value is logged.
"""

from collections.abc import Mapping
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

Forwarded = Mapping[str, Mapping[str, str]]

_NOTHING: Forwarded = {}

FORWARDED: ContextVar[Forwarded] = ContextVar("agent_gateway_mcp_forwarded", default=_NOTHING)
"""Headers to send with calls for the current request, by server."""


class Forwarding:
    """ASGI middleware that collects allowed headers from requests.

    Args:
        app: The wrapped application.
        allowed: Names of the allowed headers, by server.
    """

    def __init__(self, app: ASGIApp, allowed: Mapping[str, list[str]]) -> None:
        self._app = app
        self._allowed = {server: {name.lower().encode() for name in names} for server, names in allowed.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with its allowed headers in `FORWARDED`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = FORWARDED.set(
            {
                server: {
                    name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in names
                }
                for server, names in self._allowed.items()
            }
        )
        try:
            await self._app(scope, receive, send)
        finally:
            FORWARDED.reset(token)
