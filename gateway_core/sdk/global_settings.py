"""Saves the process-wide settings of the Agents SDK, and restores them after an agent's module has changed them.

The SDK stores its default client, its API type and its trace processors in module globals, and the `openai` client
reads environment variables. An agent's module that changes them would affect all other agents. Therefore the settings
are saved at startup and restored after each load. No other module accesses these globals.
"""

import os
from collections.abc import Iterable
from typing import Any

from agents import Span, Trace, TracingProcessor, set_trace_processors
from agents.models import _openai_shared
from agents.tracing import get_trace_provider

# Only the variables that the SDK and its client read. Other variables that a module sets are not restored, because its
# tools may need them at run time.
_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_DEFAULT_MODEL")
_GLOBALS = (
    "_default_openai_key",
    "_default_openai_client",
    "_use_responses_by_default",
    "_default_openai_responses_transport",
    "_use_responses_websocket_by_default",
)


class GlobalSettings:
    """A snapshot of the current settings, to be restored later.

    Args:
        tracing: Whether the SDK may send traces, including prompts, to OpenAI's servers, as it does by default.
        processors: Additional trace processors, which are installed until `close`.
    """

    def __init__(self, *, tracing: bool = False, processors: Iterable[TracingProcessor] = ()) -> None:
        self._variables = {name: os.environ.get(name) for name in _VARIABLES}
        self._globals: dict[str, Any] = {name: getattr(_openai_shared, name) for name in _GLOBALS}
        self._own = tuple(_OfGateway(processor) for processor in processors)
        self._others = tuple(p for p in _processors() if not isinstance(p, _OfGateway)) if tracing else ()
        set_trace_processors(self._wanted())
        self._tracing_disabled = getattr(get_trace_provider(), "_manual_disabled", None)

    def restore(self) -> list[str]:
        """Restore the settings that were changed. Return descriptions of them for operators."""
        changed = []
        for name, value in self._variables.items():
            if os.environ.get(name) != value:
                changed.append(f"the environment variable {name}")
                _set_variable(name, value)
        for name, value in self._globals.items():
            if getattr(_openai_shared, name) is not value:
                changed.append(f"the SDK's {name.strip('_').replace('_', ' ')}")
                setattr(_openai_shared, name, value)
        wanted = self._wanted()
        if {*_processors()} != {*wanted}:
            changed.append("the SDK's trace processors")
            set_trace_processors(wanted)
        provider: Any = get_trace_provider()
        if getattr(provider, "_manual_disabled", None) != self._tracing_disabled:
            changed.append("the SDK's tracing switch")
            provider._manual_disabled = self._tracing_disabled
            provider._refresh_disabled_flag()
        return changed

    def close(self) -> None:
        """Remove the trace processors of this gateway."""
        set_trace_processors([processor for processor in _processors() if processor not in self._own])

    def _wanted(self) -> list[TracingProcessor]:
        """Return the processors of this gateway, and those of other gateways in the process."""
        foreign = [p for p in _processors() if isinstance(p, _OfGateway) and p not in self._own]
        return [*self._others, *foreign, *self._own]


class _OfGateway(TracingProcessor):
    """Marks a processor as one of a gateway, so that other gateways in the process do not remove it."""

    def __init__(self, inner: TracingProcessor) -> None:
        self._inner = inner

    def on_trace_start(self, trace: Trace) -> None:
        self._inner.on_trace_start(trace)

    def on_trace_end(self, trace: Trace) -> None:
        self._inner.on_trace_end(trace)

    def on_span_start(self, span: Span[Any]) -> None:
        self._inner.on_span_start(span)

    def on_span_end(self, span: Span[Any]) -> None:
        self._inner.on_span_end(span)

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self) -> None:
        self._inner.force_flush()


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _processors() -> tuple[Any, ...]:
    multi = getattr(get_trace_provider(), "_multi_processor", None)
    return tuple(getattr(multi, "_processors", ()))
