"""The state of one request's run, shared with every run that the agent starts inside it.

A context variable carries it, so it propagates to tasks and tool threads, and requests never share it. This module does
not start runs.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Protocol

from agents import ModelProvider
from attrs import define, field, frozen

from gateway_core.catalog.workflow_analysis import TerminalRuns
from gateway_core.errors import GatewayError
from gateway_core.runs.client_tools import ClientTools
from gateway_core.runs.event_channel import EventChannel
from gateway_core.runs.run_events import RunEvent
from gateway_core.runs.run_processes import RunProcesses
from gateway_core.runs.sandbox_lease import SandboxLease
from gateway_core.types import AgentEntry, AnswerFormat, RunContext, ToolInfo, Usage


@frozen
class ActiveToolCall:
    """A tool call that has started and has no result yet."""

    context: Any
    """The SDK's `ToolContext`; the reference keeps its `id()` unique."""
    tool: ToolInfo
    started: float
    """Start time in seconds, from `time.perf_counter`."""


class ToolCalls(Protocol):
    """Authorizes and measures a run's tool calls; `runs/tool_authorization.py` implements it."""

    def adopt(self, scope: "RunScope", agent: Any) -> None:
        """Bind the tools of an agent that appears at run time."""

    def guard(self, tools: Iterable[Any]) -> None:
        """Put the guard on tools that the SDK creates for a run."""

    async def refusal(self, scope: "RunScope", tool: ToolInfo) -> GatewayError | None:
        """The reason a tool may not be called; `None` when it may."""

    async def check(self, scope: "RunScope", tool: ToolInfo, call_id: str) -> Any:
        """Authorize one call, as the SDK's guardrail output."""

    async def check_unguarded(self, scope: "RunScope", context: Any, agent: Any, tool: Any) -> None:
        """Authorize a call of a tool without a guardrail."""

    def began(self, scope: "RunScope", context: Any, agent: Any, tool: Any) -> None:
        """Record that a call started."""

    def ended(self, scope: "RunScope", context: Any, tool: Any) -> None:
        """Record that a call has a result."""

    def close(self, scope: "RunScope", contexts: "set[int] | None" = None, failed: str | None = None) -> None:
        """Record the end of calls that never got a result."""

    def hosted(self, scope: "RunScope", agent: Any, name: str, call_id: str, *, failed: bool) -> None:
        """Record a call that the model's server made."""


class AgentAuthorization(Protocol):
    """Authorizes other served agents; `runs/cross_agent_authorization.py` implements it."""

    async def permit(self, scope: "RunScope", agent: Any) -> None:
        """Raise `PermissionDeniedError` when the caller may not use the agent."""

    def served_as(self, run: RunContext, agent: Any) -> str:
        """The id by which policies know the agent."""


class ModelCallRecorder(Protocol):
    """Records a run's model calls; `runs/model_calls.py` implements it."""

    def began(self, key: object, agent: str, requested: Any) -> None:
        """Record that a call started."""

    def first_chunk(self, key: object) -> None:
        """Record the first chunk of a streamed response."""

    def ended(self, key: object, usage: Usage) -> None:
        """Record that a call has a response."""

    def aborted(self, key: object, error: BaseException | None) -> None:
        """Record that the SDK run failed during a call."""

    def close(self) -> None:
        """Record the end of every call still in flight."""


@define(eq=False)
class RunScope:
    """The state of one request's run."""

    run: RunContext
    provider: ModelProvider | None
    """The provider of models; `None` for the SDK's default."""
    loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop)
    channel: EventChannel[RunEvent] = field(factory=EventChannel)
    live: bool = True
    """Whether the client streams the events. If not, upstreams need not stream either."""
    system: str | None = None
    """The client's system messages, appended to the instructions of the answering agent."""
    settings: Mapping[str, Any] = field(factory=dict)
    """Sampling settings of the request, for agents that do not set them."""
    answer_format: AnswerFormat | None = None
    """The format of the answer, for agents without an output type."""
    client_tools: ClientTools | None = None
    """The tools that run in the client; `None` if the agent does not accept any."""
    hold_answers: bool = True
    """Whether an answer is held until its output guardrails have passed."""
    workflow: "WorkflowState | None" = None
    """The progress of a workflow; `None` if an agent runs."""
    text: str = ""
    """The last user message."""
    steps_sent: bool = False
    """Whether an intermediate step has sent text."""
    may_pause: bool = False
    """Whether the run may pause to wait for a user's approval."""
    awaits_client: bool = False
    """Whether the run has ended to wait for the results of the client's tools."""
    usage: Usage = Usage()
    """Token usage so far, of every model call inside this scope."""
    finish_reason: str | None = None
    """The finish reason of the last model call, if the upstream reports one."""
    refused: bool = False
    """Whether a model refused, or its provider filtered the answer."""
    entry: AgentEntry | None = None
    """The served agent that the request is for."""
    tools: ToolCalls | None = None
    """Authorizes and measures tool calls; if `None`, only open tools can be called."""
    cross_agent: AgentAuthorization | None = None
    """Authorizes other served agents that the run reaches; if `None`, all are allowed."""
    sandbox: SandboxLease | None = None
    """Provides workspaces for agents that work in a sandbox; `None` if no sandbox is configured."""
    processes: RunProcesses | None = None
    """Records the child processes that the run starts; `None` if they are not recorded."""
    models: ModelCallRecorder | None = None
    """Records model calls; `None` if no plugin observes them."""
    calls: dict[int, ActiveToolCall] = field(factory=dict)
    """The active tool calls, by the `id()` of their context."""
    failed_calls: set[str] = field(factory=set)
    """The ids of the tool calls that failed or were refused, for which the model received an error message."""
    tool_errors: dict[str, str] | None = None
    """The exceptions of failed tool calls by the id of the call, for the client; `None` if it does not see them."""
    tool_calls: int = 0
    """Number of tool calls so far."""
    runs: int = 0
    """Number of SDK runs that started in this scope."""
    notes: list[str] = field(factory=list)
    """Warnings for the operator about what the code did to the process."""
    tasks: int = 0
    """Number of active tasks that were started in this scope."""
    importing: bool = False
    """Whether a module is being imported, which must not run agents."""
    rejected_runs: int = 0
    """Number of runs that were rejected because a module was being imported."""
    fatal: GatewayError | None = None
    """The error that ends the run, even if the agent's code catches it."""


@define(eq=False)
class WorkflowState:
    """The progress of a workflow."""

    terminal: TerminalRuns
    """The runs that produce the answer."""
    history: Sequence[Mapping[str, Any]] = ()
    """The earlier turns, for a workflow that takes only text."""
    attachments: Sequence[Mapping[str, Any]] = ()
    """The images, files and audio of the last user message, for a workflow that takes only text."""
    attached: bool = False
    """Whether the input of a run contains the attachments."""
    runs: int = 0
    """Number of runs started so far."""
    answer_text: str = ""
    """The answer text sent so far by its terminal runs."""
    last_output: Any = None
    """The output of the last run that is not a step; without such a run, of the last run."""
    script: "ScriptState | None" = None
    """For a script's function, which takes no argument."""


@define(eq=False)
class ScriptState:
    """The message of a request to a script, taken by its first run or its first `input()`, the earlier one."""

    conversation: Sequence[Mapping[str, Any]]
    """The input items of the first run: the earlier turns and the last user message."""
    message: Sequence[Mapping[str, Any]]
    """The last user message, as items."""
    taken: bool = False
    """Whether the message was taken."""
    own_text: str | None = None
    """The script's own text, which the message replaced in the first run."""
    inputs_after: int = 0
    """Number of calls of `input()` after the message was taken."""
    over: bool = False
    """Whether the run has ended; a thread of the script may still run."""
    calls: "set[Future[Any]]" = field(factory=set)
    """The runs that threads of the script wait for."""

    def close(self) -> None:
        """End the runs that the script's threads have started, and prevent further ones."""
        self.over = True
        for call in list(self.calls):
            call.cancel()


@define(eq=False)
class Position:
    """The position of the current code within a scope."""

    scope: RunScope
    depth: int
    """Nesting depth: 0 outside any SDK run, 1 inside one, and one more for each nested run."""
    agent: Any = None
    """The SDK agent that calls a model; `None` before its first call."""
    requested_model: Any = None
    """The model that this call requests: that of the run's configuration, or else of the agent."""
    answers: bool = False
    """Whether the current SDK run produces the answer. Runs nested inside it do not."""


POSITION: ContextVar[Position | None] = ContextVar("agent_gateway_position", default=None)
"""The current position; set while an agent's code runs for a request."""

TOOL_CALL: ContextVar[ToolInfo | None] = ContextVar("agent_gateway_tool_call", default=None)
"""The tool whose code runs, in the tasks and tool threads of its call."""
