"""Access log: one line per request, written when the response has completed or the client has disconnected.

The line contains the path, but not the query or the body.
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_core import Usage, log_context

LOGGER = "agent_gateway.request"
logger = logging.getLogger(LOGGER)

CLIENT_CLOSED_REQUEST = 499
"""Status logged when the client disconnected before the response was complete (nginx's convention)."""

_MAX_PATH = 500
"""Maximum number of characters of a path in a log line, because clients choose it."""


class AccessLog:
    """ASGI middleware that writes the access log.

    Args:
        app: The wrapped ASGI application.
        usage: By request id, the token counts of the requests in progress. Only ids that are present are counted.
    """

    def __init__(self, app: ASGIApp, usage: dict[str, Usage]) -> None:
        self._app = app
        self._usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size, complete = 0, 0, False
        request_id = log_context().get("request_id", "")
        self._usage[request_id] = Usage()

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
            fields = {
                "method": scope["method"],
                "path": scope["path"][:_MAX_PATH],
                "status": status if complete else CLIENT_CLOSED_REQUEST,
                "seconds": round(time.perf_counter() - began, 6),
                "bytes": size,
            }
            usage = self._usage.pop(request_id, Usage())
            if usage.requests:
                fields |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
            logger.info("request", extra={"fields": fields})
