"""Converts traces and spans of the Agents SDK to OpenTelemetry spans, as children of the request span.

Names and attributes follow https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. The SDK calls the
processor in the task of the run. Traces outside a request of this gateway are ignored.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agents.tracing import Span as SdkSpan
from agents.tracing import Trace, TracingProcessor, get_current_span, get_current_trace
from attrs import define, field
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway_core import FAILED_AFTER_TOOL, log_context
from gateway_plugins.tracing.span_attributes import describe_span, result_attributes

MAX_OPEN_TRACES = 10_000
"""Maximum number of open traces; beyond it, the oldest trace is ended."""


@define(eq=False)
class _Open:
    """An open trace."""

    root: Span
    spans: dict[str, tuple[Span, bool]] = field(factory=dict)
    """By SDK span id: the span, and whether it belongs to that id. SDK spans without one use their parent's."""


class Spans(TracingProcessor):
    """The spans of one gateway.

    Args:
        tracer: Creates the spans.
        content: Whether spans contain prompts, answers, arguments and results.
    """

    def __init__(self, tracer: Tracer, *, content: bool) -> None:
        self._tracer = tracer
        self._content = content
        self._request: ContextVar[Span | None] = ContextVar("agent_gateway_request_span", default=None)
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        """Creates the span of a request, in the client's trace if the request has a `traceparent` header."""
        sent = {n.decode(): v.decode("latin-1") for n, v in headers if n in (b"traceparent", b"tracestate")}
        parent = self._propagator.extract(sent, Context())
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        token = self._request.set(span)
        try:
            yield span
        finally:
            self._request.reset(token)
            span.end()

    def finish_request(self, span: Span, method: str, route: str | None, status: int, request_id: str) -> None:
        """Sets the attributes of a finished request (https://opentelemetry.io/docs/specs/semconv/http/http-spans/)."""
        span.update_name(f"{method} {route}" if route else method)
        span.set_attributes({"http.request.method": method, "agent_gateway.request_id": request_id})
        if route:
            span.set_attribute("http.route", route)
        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= 500 or status == FAILED_AFTER_TOOL:
            span.set_status(Status(StatusCode.ERROR))

    def headers(self) -> Mapping[str, str]:
        """Returns the trace headers for outgoing requests in the current context."""
        span = self._current_span()
        carrier: dict[str, str] = {}
        if span is not None:
            self._propagator.inject(carrier, set_span_in_context(span, Context()))
        return carrier

    def on_trace_start(self, trace: Trace) -> None:
        """Starts the span of an SDK trace, which contains one or more runs."""
        parent = self._request.get()
        if parent is None:
            return
        known = {name: value for name in ("request_id", "agent_id") if (value := log_context().get(name))}
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.workflow.name": trace.name,
            **{f"agent_gateway.{name}": value for name, value in known.items()},
        }
        self._open[trace.trace_id] = _Open(self._start(f"invoke_workflow {trace.name}", parent, attributes))
        if len(self._open) > MAX_OPEN_TRACES:
            self._end(self._open.popitem(last=False)[1])

    def on_trace_end(self, trace: Trace) -> None:
        """Ends the span of an SDK trace, and its open child spans."""
        found = self._open.pop(trace.trace_id, None)
        if found is not None:
            self._end(found)

    def on_span_start(self, span: SdkSpan[Any]) -> None:
        """Starts a span."""
        found = self._open.get(span.trace_id)
        if found is None:
            return
        parent, _ = found.spans.get(span.parent_id or "", (found.root, False))
        description = describe_span(span.span_data)
        if description is None:
            found.spans[span.span_id] = (parent, False)
        else:
            found.spans[span.span_id] = (
                self._start(description.name, parent, description.attributes, description.kind),
                True,
            )

    def on_span_end(self, span: SdkSpan[Any]) -> None:
        """Ends a span."""
        found = self._open.get(span.trace_id)
        made, own = found.spans.pop(span.span_id, (None, False)) if found is not None else (None, False)
        if made is None or not own:
            return
        description = describe_span(span.span_data)
        if description is not None:
            made.update_name(description.name)
            made.set_attributes({**description.attributes, **result_attributes(span.span_data, content=self._content)})
        if span.error is not None:
            # The message may contain tool arguments.
            made.set_status(Status(StatusCode.ERROR, str(span.error["message"]) if self._content else None))
        made.end()

    def shutdown(self) -> None:
        """Does nothing: the plugin shuts down the provider."""

    def force_flush(self) -> None:
        """Does nothing: the provider flushes its exporter."""

    def _start(
        self, name: str, parent: Span, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self._tracer.start_span(name, set_span_in_context(parent, Context()), kind, dict(attributes))

    def _current_span(self) -> Span | None:
        span, trace = get_current_span(), get_current_trace()
        found = self._open.get(span.trace_id if span else trace.trace_id if trace else "")
        if found is None:
            return self._request.get()
        return found.spans.get(span.span_id if span else "", (found.root, False))[0]

    def _end(self, trace: _Open) -> None:
        for span, own in [*trace.spans.values()]:
            if own:
                span.end()
        trace.root.end()
