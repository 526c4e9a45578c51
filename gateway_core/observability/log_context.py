"""Holds the log context: fields such as the request id and the agent id, which are added to every log line.

The context is a context variable, so tasks and tool threads inherit it, and log lines of the SDK and of agents have it,
too. The log formatter reads it; this module writes no log lines. The fields must not contain secrets.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("agent_gateway_log_context")
_NOTHING: Mapping[str, str] = {}


def log_context() -> Mapping[str, str]:
    """Return the current fields by name, such as `request_id`, `principal` and `agent_id`."""
    return _CONTEXT.get(_NOTHING)


def add_log_context(**fields: str | None) -> None:
    """Add fields for the rest of the current task and for the tasks that it starts later."""
    _CONTEXT.set({**log_context(), **{name: value for name, value in fields.items() if value is not None}})


@contextmanager
def in_log_context(**fields: str | None) -> Iterator[None]:
    """Add fields within a `with` block."""
    token = _CONTEXT.set(_CONTEXT.get(_NOTHING))
    try:
        add_log_context(**fields)
        yield
    finally:
        _CONTEXT.reset(token)
