"""Creates a span for each HTTP request, continues the client's trace and adds the trace id to the log context.

It does not read the body or the query.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import add_log_context, response_of, set_trace_headers

if TYPE_CHECKING:
    from gateway_plugins.tracing.spans import Spans


class RequestSpans:
    """ASGI middleware that creates request spans.

    Args:
        app: The wrapped ASGI application.
        spans: Returns the spans, or `None` before startup and after shutdown.
    """

    def __init__(self, app: ASGIApp, spans: "Callable[[], Spans | None]") -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spans = self._spans()
        if scope["type"] != "http" or spans is None:
            await self._app(scope, receive, send)
            return
        with spans.request(scope["headers"]) as span:
            add_log_context(trace_id=format(span.get_span_context().trace_id, "032x"))
            set_trace_headers(spans.headers)
            try:
                await self._app(scope, receive, send)
            finally:
                route = getattr(scope.get("route"), "path", None)
                spans.finish_request(
                    span, scope["method"], route, response_of(scope).status, scope["state"]["request_id"]
                )
