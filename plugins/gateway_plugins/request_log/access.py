"""One line for each request, when its answer is through or its client has left.

It knows the path, and neither the query nor the body.
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("agent_gateway.request")

CLIENT_LEFT = 499
"""The status that is written when a client left before its answer was through; nginx's convention."""


class AccessLog:
    """ASGI middleware.

    Args:
        app: What is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size, through = 0, 0, False

        async def counted_send(message: Message) -> None:
            nonlocal status, size, through
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
                through = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, counted_send)
        except Exception as error:
            # What is raised becomes an answer further out.
            status, through = status or getattr(error, "status", 500), True
            raise
        finally:
            logger.info(
                "request",
                extra={
                    "fields": {
                        "method": scope["method"],
                        "path": scope["path"],
                        "status": status if through else CLIENT_LEFT,
                        "seconds": round(time.perf_counter() - began, 6),
                        "bytes": size,
                    }
                },
            )
