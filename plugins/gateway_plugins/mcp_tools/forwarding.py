"""Headers of a client's request that an operator lets through to MCP servers, on their way to the calls that need them.

A context variable carries them from the request to its run. It knows no server, and logs no value.
"""

from collections.abc import Mapping
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

Forwarded = Mapping[str, Mapping[str, str]]

_NOTHING: Forwarded = {}

FORWARDED: ContextVar[Forwarded] = ContextVar("agent_gateway_mcp_forwarded", default=_NOTHING)
"""By server, what goes with its calls for the current request."""


class Forwarding:
    """ASGI middleware that takes headers from requests.

    Args:
        app: What answers.
        allowed: By server, the names of the headers that it may get.
    """

    def __init__(self, app: ASGIApp, allowed: Mapping[str, list[str]]) -> None:
        self._app = app
        self._allowed = {server: {name.lower().encode() for name in names} for server, names in allowed.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
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
