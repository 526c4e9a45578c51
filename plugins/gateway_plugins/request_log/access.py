"""Access log: one line per request, written when the response has completed or the client has disconnected.

The line contains the path, but not the query or the body.
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("agent_gateway.request")

CLIENT_CLOSED_REQUEST = 499
"""Status logged when the client disconnected before the response was complete (nginx's convention)."""

_MAX_PATH = 500
"""Maximum number of characters of a path in a log line, because clients choose it."""


class AccessLog:
    """ASGI middleware that writes the access log.

    Args:
        app: The wrapped ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size, complete = 0, 0, False

        async def counted_send(message: Message) -> None:
            nonlocal status, size, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, counted_send)
        except Exception:
            complete = True  # the response has started, and the gateway interrupts it
            raise
        finally:
            logger.info(
                "request",
                extra={
                    "fields": {
                        "method": scope["method"],
                        "path": scope["path"][:_MAX_PATH],
                        "status": status if complete else CLIENT_CLOSED_REQUEST,
                        "seconds": round(time.perf_counter() - began, 6),
                        "bytes": size,
                    }
                },
            )
