"""Counts and times each HTTP request.

It reads neither body nor query, and wraps no piece of an answer but its start and its end.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from gateway_plugins.metrics.instruments import Instruments

CLIENT_LEFT = 499
"""The status of a request whose client left before its answer was through; nginx's convention."""


class RequestMetrics:
    """ASGI middleware.

    Args:
        app: What is inside.
        instruments: Gives the instruments; none before the start and after the stop.
    """

    def __init__(self, app: ASGIApp, instruments: "Callable[[], Instruments | None]") -> None:
        self._app = app
        self._instruments = instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        instruments = self._instruments()
        if scope["type"] != "http" or instruments is None:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, through = 0, False

        async def watched_send(message: Message) -> None:
            nonlocal status, through
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                through = True
            await send(message)

        instruments.active_requests += 1
        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            # What is raised becomes an answer further out.
            status, through = status or getattr(error, "status", 500), True
            raise
        finally:
            instruments.active_requests -= 1
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            instruments.request(scope["method"], route, status if through else CLIENT_LEFT, seconds)
