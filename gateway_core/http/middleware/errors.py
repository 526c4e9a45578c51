"""ASGI middleware that converts an exception to an error response and reports it once.

Clients see the message of a `GatewayError`, but never the text of another exception. A WebSocket is rejected with the
same response before it is opened.
"""

import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import GatewayError
from gateway_core.http import error_responses
from gateway_core.http.middleware.request_context import request_id_of
from gateway_core.http.middleware.request_head import check_head
from gateway_core.http.sent_response import response_of

logger = logging.getLogger(__name__)


class ErrorMiddleware:
    """Converts exceptions of the wrapped application to error responses.

    One is around the routes and around each middleware of a plugin, so that every middleware sees the response.

    Args:
        app: The wrapped ASGI application.
        announce: Called once for each error, with the request id.
        limits: The limits on request headers; `None` if another instance checks them.
    """

    def __init__(
        self, app: ASGIApp, announce: Callable[[GatewayError, str], None], limits: HttpConfig | None = None
    ) -> None:
        self._app = app
        self._announce = announce
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._web_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if self._limits is not None:
                check_head(scope, self._limits)
            await self._app(scope, receive, send)
        except Exception as error:
            # The error must not be in a variable here: its traceback refers to this frame, and this cycle would retain
            # the request's body until a garbage collection.
            sent = response_of(scope)
            if sent.started:
                if not sent.failed:
                    sent.failed = True
                    self._problem(error, request_id_of(scope))
                # The status has been sent. Close the connection, so that the client notices the truncated response.
                raise
            response = error_responses.response(self._problem(error, request_id_of(scope)), request_id_of(scope))
            await response(scope, receive, send)

    async def _web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            problem = self._problem(error, "")
            if started:
                raise
            socket = WebSocket(scope, receive, send)
            if "websocket.http.response" in scope.get("extensions", {}):
                await socket.send_denial_response(error_responses.response(problem, ""))
            else:  # the server responds with 403
                await socket.close()

    def _problem(self, error: Exception, request_id: str) -> GatewayError:
        if isinstance(error, GatewayError):
            problem = error
        else:
            logger.exception("request %s failed", request_id)
            problem = GatewayError("internal error")
            problem.__cause__ = error
        self._announce(problem, request_id)
        return problem
