"""The process-wide settings of the Agents SDK, saved when a gateway starts and restored after agents changed them.

The SDK stores its default runner, its default client, its API type and its trace processors in module globals, and the
`openai` client reads environment variables. An agent's module that changes them would affect all other agents. No
other module accesses these globals.
"""

import os
from collections.abc import Iterable
from typing import Any

import agents
import httpx2
import openai
from agents import Span, Trace, TracingProcessor, set_trace_processors
from agents import run as agents_run
from agents.models import _openai_shared, openai_agent_registration
from agents.tracing import get_trace_provider, set_trace_provider
from agents.tracing import setup as tracing_setup

from gateway_core.sdk.process_state import MISSING, Change, ProcessState, Setting, attributes, patched, single

# Only the variables that the SDK and its client read. Other variables that a module sets are not restored, because its
# tools may need them at run time.
_VARIABLES = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_DEFAULT_MODEL",
    "OPENAI_AGENTS_DISABLE_TRACING",
)
_GLOBALS = {
    "default OpenAI key": "_default_openai_key",
    "default OpenAI client": "_default_openai_client",
    "default API": "_use_responses_by_default",
    "default transport": "_default_openai_responses_transport",
    "default use of websockets": "_use_responses_websocket_by_default",
}

RUNNER = "the SDK's default agent runner"
RUNNER_ADVICE = "call your runner object instead of Runner, whose runs belong to the gateway"


class GlobalSettings:
    """A snapshot of the current settings, to be restored later.

    Args:
        tracing: Whether the SDK may send traces, including prompts, to OpenAI's servers, as it does by default.
        processors: Additional trace processors, which are installed until `close`.
    """

    def __init__(self, *, tracing: bool = False, processors: Iterable[TracingProcessor] = ()) -> None:
        self._own = tuple(_OfGateway(processor) for processor in processors)
        self._others = tuple(p for p in _processors() if not isinstance(p, _OfGateway)) if tracing else ()
        set_trace_processors(self._wanted())
        self._state = ProcessState(self._settings())

    def restore(self) -> list[Change]:
        """Restore the settings that were changed, and return them."""
        return self._state.restore()

    def close(self) -> None:
        """Remove the trace processors of this gateway."""
        set_trace_processors([processor for processor in _processors() if processor not in self._own])

    def _settings(self) -> list[Setting]:
        return [
            Setting(
                RUNNER,
                **attributes(agents_run, "DEFAULT_AGENT_RUNNER"),
                advice=RUNNER_ADVICE,
                calls="set_default_agent_runner|DEFAULT_AGENT_RUNNER",
            ),
            Setting(
                "the environment variable {}",
                lambda: {name: os.environ.get(name, MISSING) for name in _VARIABLES},
                _set_variable,
                "pass it to your own client: AsyncOpenAI(api_key=..., base_url=...)",
                "load_dotenv",
                used_by_imports=True,
            ),
            Setting(
                "the SDK's {}",
                lambda: {item: getattr(_openai_shared, name) for item, name in _GLOBALS.items()},
                lambda item, value: setattr(_openai_shared, _GLOBALS[item], value),
                "give each agent a model object with your client",
                "set_default_openai",
            ),
            Setting(
                "the SDK's default agent registration",
                **attributes(openai_agent_registration, "_default_agent_registration"),
                calls="set_default_openai_(harness|agent_registration)",
            ),
            single(
                "the SDK's trace provider",
                lambda: tracing_setup.GLOBAL_TRACE_PROVIDER,
                set_trace_provider,
                calls="set_trace_provider",
            ),
            Setting(
                "the SDK's trace processors",
                lambda: {"": _processors()},
                lambda *_: set_trace_processors(self._wanted()),
                "the gateway's plugins trace runs",
                r"(set|add)_trace_processors?|instrument",
                unchanged=lambda *_: {*_processors()} == {*self._wanted()},
            ),
            single(
                "the SDK's tracing switch",
                lambda: getattr(get_trace_provider(), "_manual_disabled", None),
                _set_tracing_disabled,
                advice="the operator sets [runs] sdk_tracing",
                calls="set_tracing_disabled",
            ),
        ]

    def _wanted(self) -> list[TracingProcessor]:
        """Return the processors of this gateway, and those of other gateways in the process."""
        foreign = [p for p in _processors() if isinstance(p, _OfGateway) and p not in self._own]
        return [*self._others, *foreign, *self._own]


def sdk_patches() -> Setting:
    """Return the setting for functions and methods of the SDK and of its clients that agents replace."""
    return patched(
        {
            "agents": agents,
            "agents.Agent": agents.Agent,
            "agents.Runner": agents.Runner,
            "agents.run": agents_run,
            "agents.run.AgentRunner": agents_run.AgentRunner,
            "openai": openai,
            "openai.OpenAI": openai.OpenAI,
            "openai.AsyncOpenAI": openai.AsyncOpenAI,
            "httpx2": httpx2,
            "httpx2.Client": httpx2.Client,
            "httpx2.AsyncClient": httpx2.AsyncClient,
        }
    )


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


def _set_variable(name: str, value: Any) -> None:
    if value is MISSING:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _set_tracing_disabled(value: Any) -> None:
    provider: Any = get_trace_provider()
    provider._manual_disabled = value
    provider._refresh_disabled_flag()


def _processors() -> tuple[Any, ...]:
    multi = getattr(get_trace_provider(), "_multi_processor", None)
    return tuple(getattr(multi, "_processors", ()))
