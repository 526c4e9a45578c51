"""What the Agents SDK tells of its traces and spans becomes OpenTelemetry spans below the request's.

Names and attributes follow https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/. The SDK calls this in the
task of the run. A trace that does not belong to a request of this gateway is left alone.
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

from gateway_core import log_context
from gateway_plugins.tracing.span_attributes import described, result_of

MOST_TRACES = 10_000
"""Traces that are on; beyond that, the oldest one is given up."""


@define(eq=False)
class _Open:
    """A trace that is on."""

    root: Span
    spans: dict[str, tuple[Span, bool]] = field(factory=dict)
    """By the SDK's id: a span, and whether it is that id's own, not its parent's."""


class Spans(TracingProcessor):
    """The spans of one gateway.

    Args:
        tracer: Makes them.
        content: Whether prompts, answers, arguments and results are put into them.
    """

    def __init__(self, tracer: Tracer, *, content: bool) -> None:
        self._tracer = tracer
        self._content = content
        self._request: ContextVar[Span | None] = ContextVar("agent_gateway_request_span", default=None)
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Span]:
        """The span of a request, which goes on with the client's trace if it sends one."""
        sent = {n.decode(): v.decode("latin-1") for n, v in headers if n in (b"traceparent", b"tracestate")}
        parent = self._propagator.extract(sent, Context())
        span = self._tracer.start_span("request", parent, SpanKind.SERVER)
        token = self._request.set(span)
        try:
            yield span
        finally:
            self._request.reset(token)
            span.end()

    def answered(self, span: Span, method: str, route: str | None, status: int, request_id: str) -> None:
        """What became of a request (https://opentelemetry.io/docs/specs/semconv/http/http-spans/)."""
        span.update_name(f"{method} {route}" if route else method)
        span.set_attributes({"http.request.method": method, "agent_gateway.request_id": request_id})
        if route:
            span.set_attribute("http.route", route)
        if status:
            span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))

    def headers(self) -> Mapping[str, str]:
        """What a server that is called now is told."""
        span = self._now()
        carrier: dict[str, str] = {}
        if span is not None:
            self._propagator.inject(carrier, set_span_in_context(span, Context()))
        return carrier

    def on_trace_start(self, trace: Trace) -> None:
        """A run begins, or several that belong together."""
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
        if len(self._open) > MOST_TRACES:
            self._end(self._open.popitem(last=False)[1])

    def on_trace_end(self, trace: Trace) -> None:
        """It is over, and so is everything in it."""
        found = self._open.pop(trace.trace_id, None)
        if found is not None:
            self._end(found)

    def on_span_start(self, span: SdkSpan[Any]) -> None:
        """A step of a run begins."""
        found = self._open.get(span.trace_id)
        if found is None:
            return
        parent, _ = found.spans.get(span.parent_id or "", (found.root, False))
        what = described(span.span_data)
        if what is None:
            found.spans[span.span_id] = (parent, False)
        else:
            found.spans[span.span_id] = (self._start(what.name, parent, what.attributes, what.kind), True)

    def on_span_end(self, span: SdkSpan[Any]) -> None:
        """It is over."""
        found = self._open.get(span.trace_id)
        made, own = found.spans.pop(span.span_id, (None, False)) if found is not None else (None, False)
        if made is None or not own:
            return
        what = described(span.span_data)
        if what is not None:
            made.update_name(what.name)
            made.set_attributes({**what.attributes, **result_of(span.span_data, content=self._content)})
        if span.error is not None:
            # Its words may hold what a tool was called with.
            made.set_status(Status(StatusCode.ERROR, str(span.error["message"]) if self._content else None))
        made.end()

    def shutdown(self) -> None:
        """Nothing: the provider is shut down by who made it."""

    def force_flush(self) -> None:
        """Nothing, as above."""

    def _start(
        self, name: str, parent: Span, attributes: Mapping[str, Any], kind: SpanKind = SpanKind.INTERNAL
    ) -> Span:
        return self._tracer.start_span(name, set_span_in_context(parent, Context()), kind, dict(attributes))

    def _now(self) -> Span | None:
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
