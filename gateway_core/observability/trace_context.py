"""The trace that the code which runs now belongs to, as it is told to those that are called.

https://www.w3.org/TR/trace-context/. A context variable carries it into every task of a run. It makes no trace: without
a plugin that does, what the client sent is passed on.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar

_NOTHING: Mapping[str, str] = {}
_SOURCE: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("agent_gateway_trace", default=None)


def trace_headers() -> Mapping[str, str]:
    """The headers for a call to another server: `traceparent` and perhaps `tracestate`, or none."""
    source = _SOURCE.get()
    return source() if source is not None else _NOTHING


def set_trace_headers(source: Callable[[], Mapping[str, str]]) -> None:
    """Decide on the headers for the rest of the current task, and for the tasks that it starts from now on.

    Args:
        source: Gives them, each time that something is called.
    """
    _SOURCE.set(source)
