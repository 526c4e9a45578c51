"""Every private or experimental name of a dependency that the gateway relies on, checked before anything uses it.

Dependencies change such names without notice. `check` finds one that is missing at start, and names it, the installed
version, the supported range and the cure; otherwise the first request would fail with an `AttributeError`. The core
reaches private attributes of SDK objects only through the functions of this module. Importing it imports no dependency.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from attrs import frozen
from packaging.requirements import Requirement

from gateway_core.errors import ConfigError

if TYPE_CHECKING:
    from agents import Agent, FunctionTool, Handoff, RunState
    from agents.models.openai_provider import OpenAIProvider

DISTRIBUTION = "agent-gateway"


@frozen
class PrivateName:
    """A name that a dependency does not promise to keep."""

    distribution: str
    path: str
    """`module:attribute` or `module:Class.attribute`; the last part can be an attribute that `Class.__init__` sets,
    or a parameter of a function."""
    needed_for: str
    without: str
    """The consequence of its absence."""


NAMES = (
    PrivateName(
        "openai-agents",
        "agents.run:set_default_agent_runner",
        "routing every SDK run through the gateway's runner",
        "runs would bypass the gateway's models, limits and authorization",
    ),
    *(
        PrivateName(
            "openai-agents",
            name,
            "restoring the SDK's process-wide settings after an agent's import",
            "one agent's import would change every other agent",
        )
        for name in (
            "agents.run:DEFAULT_AGENT_RUNNER",
            "agents.tracing.setup:GLOBAL_TRACE_PROVIDER",
            "agents.models.openai_agent_registration:_default_agent_registration",
        )
    ),
    PrivateName(
        "openai-agents",
        "agents.run:AgentRunner",
        "the base class of the gateway's runner",
        "no agent could run",
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.models._openai_shared:{name}",
            "restoring the SDK's process-wide default after an agent's import",
            "one agent's import would change every other agent",
        )
        for name in (
            "_default_openai_key",
            "_default_openai_client",
            "_use_responses_by_default",
            "_default_openai_responses_transport",
            "_use_responses_websocket_by_default",
        )
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.models.openai_provider:OpenAIProvider.{name}",
            "telling the SDK's default model provider from one that the author configured",
            "an author's own client would be replaced by the gateway's",
        )
        for name in ("_client", "_stored_api_key", "_stored_base_url")
    ),
    PrivateName(
        "openai-agents",
        "agents.run_state:RunState._current_agent",
        "authorizing the agent of a resumed run",
        "approved tool calls would run without authorization",
    ),
    PrivateName(
        "openai-agents",
        "agents.run_state:RunState._generated_items",
        "sending only the new items of a resumed run",
        "a resumed answer would repeat its beginning",
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.run_state:RunState.{name}",
            "giving each request of a run that waited for its client its own number of turns",
            "agents could not call more tools of a client than max_turns",
        )
        for name in ("_current_turn", "_max_turns")
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.result:RunResultStreaming.{name}",
            "reducing the memory of streamed runs",
            "each of them would need 6 KiB more",
        )
        for name in ("_event_queue", "_input_guardrail_queue")
    ),
    PrivateName(
        "openai-agents",
        "agents._public_agent:get_public_agent",
        "identifying the agent that works in a sandbox",
        "clients' tools would not be offered to such agents",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:FunctionTool._agent_instance",
        "finding agents that are used as tools",
        "their tools would be neither bound nor authorized",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:FunctionTool._is_agent_tool",
        "exempting agents used as tools from tool time limits",
        "nested agents would be cut off after a tool's time limit",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:FunctionTool._mcp_tool_binding",
        "knowing which MCP server a tool belongs to",
        "policies for MCP servers would not apply to agents' own servers",
    ),
    PrivateName(
        "openai-agents",
        "agents.handoffs:Handoff._agent_ref",
        "finding handoff targets",
        "their tools would be neither bound nor authorized",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:_FailureHandlingFunctionToolInvoker._on_handled_error",
        "reporting tool failures that the SDK turns into text for the model",
        "failed tool calls would count as successful",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:_FailureHandlingFunctionToolInvoker._invoke_tool_impl",
        "naming the tool that started a child process",
        "processes that outlive their runs would be reported without their tools",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:_FailureHandlingFunctionToolInvoker.__agents_bind_function_tool__",
        "tying the failure handling of a rebound tool to the tool",
        "a failure would be reported for another tool",
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.run_internal.agent_tool_configuration:{name}",
            "comparing an agent's tools at a cost independent of the number of runs",
            "a thousand concurrent runs of one agent would spend milliseconds per turn on comparisons",
        )
        for name in (
            "_observe_tools",
            "_ToolResolution.conflicted",
            "_ToolResolution.tools_assigned",
            "_ToolResolution.initial_tools",
        )
    ),
    *(
        PrivateName(
            "openai-agents",
            f"agents.tracing.provider:{name}",
            "restoring the SDK's tracing settings after an agent's import",
            "one agent's import would change the tracing of every other agent",
        )
        for name in (
            "DefaultTraceProvider._manual_disabled",
            "DefaultTraceProvider._refresh_disabled_flag",
            "DefaultTraceProvider._multi_processor",
            "SynchronousMultiTracingProcessor._processors",
        )
    ),
    PrivateName(
        "openai-agents",
        "agents.sandbox.sandbox_agent:SandboxAgent._sandbox_concurrency_guard",
        "running an agent that works in a sandbox for several requests at a time",
        "a request would fail while another one uses the agent",
    ),
    PrivateName(
        "openai-agents",
        "agents.sandbox.session:SandboxSession._aclose_dependencies",
        "keeping a sandbox open between the requests of a chat",
        "a chat would continue in a sandbox whose connections are closed",
    ),
    PrivateName(
        "openai-agents",
        "agents.tool:_FailureHandlingFunctionToolInvoker._invoke_tool_impl",
        "finding out who defined a tool",
        "agents that only work elsewhere would be served",
    ),
    PrivateName(
        "openai-agents",
        "agents.run_internal.run_loop:get_model",
        "answering streaming clients from models that do not stream",
        "streamed requests of agents with such a model would fail",
    ),
    PrivateName(
        "openai-agents",
        "agents.run_internal.turn_resolution:check_for_final_output_from_tools",
        "returning outputs of tools that end a run as JSON",
        "clients would read Python's notation of a dict or an object",
    ),
    PrivateName(
        "openai-agents",
        "agents.models.interface:Model._cleanup_on_run_end",
        "forwarding the end of a run to a wrapped model",
        "wrapped models would keep connections open after a run",
    ),
    PrivateName(
        "openai",
        "openai:AsyncOpenAI._prepare_request",
        "sending trace headers to upstreams",
        "traces would end at the gateway",
    ),
    PrivateName(
        "openai",
        "openai:AsyncOpenAI._make_status_error",
        "reporting errors that upstreams send within an answer",
        "their status and code would not reach the client",
    ),
    PrivateName(
        "openai",
        "openai:AsyncOpenAI.copy._extra_kwargs",
        "changing options of an upstream's client",
        "requests with changed options would not reach the upstream",
    ),
    PrivateName(
        "openai",
        "openai:AsyncStream.__stream__",
        "reading streamed chunks, and detecting a stream that was cut off",
        "an answer that was cut off would be reported as complete",
    ),
    PrivateName(
        "hypercorn",
        "hypercorn.protocol:H11Protocol",
        "detecting disconnects of clients that pipeline requests",
        "runs would continue for clients that disconnected",
    ),
    PrivateName(
        "hypercorn",
        "hypercorn.protocol.h11:H11Protocol.can_read",
        "detecting disconnects of clients that pipeline requests",
        "runs would continue for clients that disconnected",
    ),
    PrivateName(
        "hypercorn",
        "hypercorn.asyncio.tcp_server:TCPServer.reader",
        "detecting disconnects of clients that pipeline requests",
        "runs would continue for clients that disconnected",
    ),
    PrivateName(
        "watchdog",
        "watchdog.utils:BaseThread.should_keep_running",
        "detecting a file watcher thread that died",
        "changed agents would not be reloaded, without a warning",
    ),
    PrivateName(
        "watchdog",
        "watchdog.observers.inotify:InotifyEmitter._inotify_fd",
        "detecting a dead thread that reads file system events",
        "changed agents would not be reloaded, without a warning",
    ),
    PrivateName(
        "mcp",
        "mcp.client.subscriptions:ListenNotSupportedError",
        "falling back to polling for servers without change notifications",
        "tools of such servers would not be listed again",
    ),
    PrivateName(
        "opentelemetry-semantic-conventions",
        "opentelemetry.semconv._incubating.metrics.gen_ai_metrics:GEN_AI_CLIENT_OPERATION_DURATION",
        "the standard names of metrics of model calls",
        "metrics could not be exported",
    ),
)


# Distributions that only a server needs.
_SERVING = {"hypercorn", "watchdog", "opentelemetry-semantic-conventions"}


def check(*, serving: bool = True) -> None:
    """Check that every name exists.

    Args:
        serving: Whether the process is a server; if not, its libraries are neither needed nor imported.

    Raises:
        ConfigError: One is missing. The message names all that are missing in the same distribution.
    """
    absent = list(missing(name for name in NAMES if serving or name.distribution not in _SERVING))
    if not absent:
        return
    first = absent[0]
    names = ", ".join(name.path for name in absent if name.distribution == first.distribution)
    wanted = supported(first.distribution)
    raise ConfigError(
        f"lacks {names}, needed for {first.needed_for}; without it {first.without}",
        source=f"{first.distribution} {installed(first.distribution)}",
        hint=f"supported: {wanted}; run: pip install '{wanted}'",
        code="incompatible_dependency",
    )


def missing(names: Iterable[PrivateName] = NAMES) -> Iterator[PrivateName]:
    """The names that the installed dependencies lack."""
    for name in names:
        if not _exists(name.path):
            yield name


def installed(distribution: str) -> str:
    """The installed version of a distribution, or `(not installed)`."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"


def supported(distribution: str) -> str:
    """The requirement of this gateway for a distribution, such as `openai-agents<0.25,>=0.24`."""
    try:
        stated = [Requirement(text) for text in requires(DISTRIBUTION) or ()]
    except PackageNotFoundError:  # run from a source tree that is not installed
        stated = []
    found = next((each for each in stated if each.name == distribution), None)
    return f"{found.name}{found.specifier}" if found is not None else distribution


def _exists(path: str) -> bool:
    module, _, attributes = path.partition(":")
    try:
        target: Any = importlib.import_module(module)
    except Exception:
        return False
    *owners, last = attributes.split(".")
    for name in owners:
        target = getattr(target, name, None)
    return target is not None and (hasattr(target, last) or last in _names_within(target))


def _names_within(target: Any) -> set[str]:
    """The attributes of a class's instances, as far as the class shows, or the parameters of a function."""
    if inspect.isfunction(target):
        return set(inspect.signature(target).parameters)
    if not inspect.isclass(target):
        return set()
    fields = {field.name for field in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else set()
    code = getattr(target.__init__, "__code__", None)
    return fields | set(code.co_names if code is not None else ())


def agent_of_tool(tool: "FunctionTool") -> Any:
    """The agent that a tool runs, for `Agent.as_tool`; else `None`."""
    return getattr(tool, "_agent_instance", None)


def target_of_handoff(handoff: "Handoff[Any, Any]") -> Any:
    """The agent that a handoff object leads to; `None` for one that was created without `handoff()`."""
    reference = getattr(handoff, "_agent_ref", None)
    return reference() if reference is not None else None


def mcp_binding_of_tool(tool: Any) -> tuple[str, str] | None:
    """The agent's own MCP server that a tool belongs to, and the tool's name there; else `None`."""
    binding = getattr(tool, "_mcp_tool_binding", None)
    return (binding[0], binding[1]) if binding else None


def current_agent_of(state: "RunState[Any, Agent[Any]]") -> Any:
    """The agent with which a paused run continues."""
    return state._current_agent


def items_before_pause(state: "RunState[Any, Agent[Any]]") -> int:
    """Number of items that a paused run had generated."""
    return len(state._generated_items)


def allow_turns(state: "RunState[Any, Agent[Any]]", turns: int) -> None:
    """Let a paused run make this number of further model calls."""
    state._max_turns = state._current_turn + turns


def replace_queues(result: Any, queue: Callable[[], Any]) -> None:
    """Use other queues for a streamed run that has just been created, and has therefore put nothing into its own."""
    result._event_queue, result._input_guardrail_queue = queue(), queue()


def public_agent(agent: "Agent[Any]") -> "Agent[Any]":
    """The agent that a run was started with; the SDK works with a copy of one in a sandbox."""
    from agents._public_agent import get_public_agent

    return get_public_agent(agent)


def is_configured(provider: "OpenAIProvider") -> bool:
    """Whether an author gave the provider a client, a key or a base URL."""
    return any((provider._client, provider._stored_api_key, provider._stored_base_url))


def bind_invoker(tool: "FunctionTool") -> None:
    """Tie the failure handling of a tool's invoker to this tool object, as the SDK does for a copy."""
    bind = getattr(tool.on_invoke_tool, "__agents_bind_function_tool__", None)
    if bind is not None:
        tool.on_invoke_tool = bind(tool)


class _Unguarded:
    """Replaces the guard of a `SandboxAgent`, which counts its runs to refuse a second one.

    Each run works with copies of the agent and of its capabilities, so that nothing is shared.
    """

    lock = nullcontext()
    active_runs = 0

    def __setattr__(self, name: str, value: object) -> None:
        """Count no runs."""


def share_sandbox_agent(agent: Any) -> None:
    """Let several runs use a `SandboxAgent` at the same time."""
    agent._sandbox_concurrency_guard = _UNGUARDED


_UNGUARDED = _Unguarded()


def implementation_of(tool: "FunctionTool") -> Any:
    """The function that executes a tool, without the SDK's wrapper."""
    return getattr(tool.on_invoke_tool, "_invoke_tool_impl", tool.on_invoke_tool)


def run_config_of_tool(tool: "FunctionTool") -> Any:
    """The `run_config` that an author passed to `Agent.as_tool`; else `None`."""
    function = implementation_of(tool)
    return inspect.getclosurevars(function).nonlocals.get("run_config") if inspect.isfunction(function) else None


def wrap_handled_error(tool: Any, wrap: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Replace the function that the SDK calls when it turns a tool's failure into text for the model.

    Args:
        tool: A tool; one without such a function is left alone.
        wrap: Receives the present function, and returns its replacement.
    """
    _wrap(tool, "_on_handled_error", wrap)


def wrap_invocation(tool: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function that the SDK calls to invoke a tool.

    Args:
        tool: A tool; one without such a function is left alone.
        wrap: Receives the present function, and returns its replacement.
    """
    _wrap(tool, "_invoke_tool_impl", wrap)


def _wrap(tool: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    invoker = getattr(tool, "on_invoke_tool", None)
    if (present := getattr(invoker, name, None)) is not None:
        setattr(invoker, name, wrap(present))
