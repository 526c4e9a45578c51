"""ASGI middleware that turns an exception into an error response, and reports it once.

The text of an exception never reaches a client, unless it is one of the gateway's own errors.
"""

import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import GatewayError
from gateway_core.http import error_responses
from gateway_core.http.middleware.framing import check_head
from gateway_core.http.middleware.request_context import request_id_of

logger = logging.getLogger(__name__)


class ErrorMiddleware:
    """ASGI middleware that turns what is raised inside into an answer.

    Args:
        app: What is inside.
        announce: Called once for each error that becomes an answer.
        limits: What a request's head may look like.
    """

    def __init__(self, app: ASGIApp, announce: Callable[[GatewayError, str], None], limits: HttpConfig) -> None:
        self._app = app
        self._announce = announce
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            check_head(scope, self._limits)
            await self._app(scope, receive, watched_send)
        except Exception as error:
            problem = self._problem(error, request_id_of(scope))
            if started:
                # Too late for a status: the connection is cut, so that nobody takes half an answer for a whole one.
                raise
            await error_responses.response(problem, request_id_of(scope))(scope, receive, send)

    def _problem(self, error: Exception, request_id: str) -> GatewayError:
        if isinstance(error, GatewayError):
            problem = error
        else:
            logger.exception("request %s failed", request_id)
            problem = GatewayError("the gateway failed")
            problem.__cause__ = error
        self._announce(problem, request_id)
        return problem
