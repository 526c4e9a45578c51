"""Propagates the trace context (https://www.w3.org/TR/trace-context/) to outgoing requests.

The context is a context variable, which every task of a run inherits. The module creates no spans: without a tracing
plugin, the headers of the client's request are forwarded.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar

_NOTHING: Mapping[str, str] = {}
_SOURCE: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("agent_gateway_trace", default=None)


def trace_headers() -> Mapping[str, str]:
    """Return the headers for an outgoing request: `traceparent` and optionally `tracestate`, or none."""
    source = _SOURCE.get()
    return source() if source is not None else _NOTHING


def set_trace_headers(source: Callable[[], Mapping[str, str]]) -> None:
    """Set the source of the headers for the rest of the current task and for the tasks that it starts later.

    Args:
        source: Called for each outgoing request. Returns the headers.
    """
    _SOURCE.set(source)
