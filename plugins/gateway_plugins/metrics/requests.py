"""Measures the number and duration of HTTP requests.

It does not read the body or the query.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from gateway_plugins.metrics.instruments import Instruments

CLIENT_CLOSED_REQUEST = 499
"""Status recorded when the client disconnected before the response was complete (nginx's convention)."""


class RequestMetrics:
    """ASGI middleware that measures requests.

    Args:
        app: The wrapped ASGI application.
        instruments: Returns the instruments, or `None` before startup and after shutdown.
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
        status, complete = 0, False

        async def watched_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                complete = True
            await send(message)

        instruments.active_requests += 1
        try:
            await self._app(scope, receive, watched_send)
        except Exception:
            complete = True  # the response has started, and the gateway interrupts it
            raise
        finally:
            instruments.active_requests -= 1
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            instruments.request(scope["method"], route, status if complete else CLIENT_CLOSED_REQUEST, seconds)
