"""What the code that runs now works for: the request, the agent and so on, to stand on every log line.

A context variable carries it, so it reaches tasks and tool threads, also the lines of the SDK and of agents. It writes
no line; whoever formats lines asks for it. Nothing secret may be put into it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("agent_gateway_log_context")
_NOTHING: Mapping[str, str] = {}


def log_context() -> Mapping[str, str]:
    """The fields of the context, such as `request_id`, `principal` and `agent_id`, by name."""
    return _CONTEXT.get(_NOTHING)


def add_log_context(**fields: str | None) -> None:
    """Add fields for the rest of the current task, and for the tasks that it starts from now on."""
    _CONTEXT.set({**log_context(), **{name: value for name, value in fields.items() if value is not None}})


@contextmanager
def in_log_context(**fields: str | None) -> Iterator[None]:
    """Add fields for a block."""
    token = _CONTEXT.set(_CONTEXT.get(_NOTHING))
    try:
        add_log_context(**fields)
        yield
    finally:
        _CONTEXT.reset(token)
