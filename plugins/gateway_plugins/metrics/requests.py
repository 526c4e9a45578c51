"""Measures the number and duration of HTTP requests.

It does not read the body or the query.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import response_of

if TYPE_CHECKING:
    from gateway_plugins.metrics.instruments import Instruments


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
        instruments.active_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            instruments.active_requests -= 1
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            instruments.request(scope["method"], route, response_of(scope).final_status, seconds)
