"""Access log: one line per request, written when the response has completed or the client has disconnected.

The line contains the path, but not the query or the body.
"""

import logging
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import Usage, log_context, response_of

LOGGER = "agent_gateway.request"
logger = logging.getLogger(LOGGER)

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
        request_id = log_context().get("request_id", "")
        self._usage[request_id] = Usage()

        try:
            await self._app(scope, receive, send)
        finally:
            response = response_of(scope)
            fields = {
                "method": scope["method"],
                "path": scope["path"][:_MAX_PATH],
                "status": response.final_status,
                "seconds": round(time.perf_counter() - began, 6),
                "bytes": response.size,
            }
            usage = self._usage.pop(request_id, Usage())
            if usage.requests:
                fields |= {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
            logger.info("request", extra={"fields": fields})
