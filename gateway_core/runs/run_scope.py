"""What belongs to one request's run, and reaches every run that the agent starts inside it.

A context variable carries it, so it crosses tasks and tool threads, and no two requests ever share one. Nothing here
starts a run.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from agents import ModelProvider
from attrs import define, field, frozen

from gateway_core.catalog.workflow_analysis import TerminalRuns
from gateway_core.errors import GatewayError
from gateway_core.runs.event_channel import EventChannel
from gateway_core.types import AgentEntry, RunContext, RunEvent, ToolInfo, Usage


@frozen
class ActiveToolCall:
    """A tool call that has started and has no result yet."""

    context: Any
    """The SDK's `ToolContext`; held, so that its identity stays its own."""
    tool: ToolInfo
    started: float
    """By `time.perf_counter`, in seconds."""


class ToolCalls(Protocol):
    """Authorizes and measures a run's tool calls; `runs/tool_authorization.py` implements it."""

    def adopt(self, scope: "RunScope", agent: Any) -> None:
        """Bind the tools of an agent that appears at run time."""

    async def refusal(self, scope: "RunScope", tool: ToolInfo) -> GatewayError | None:
        """The reason a tool may not be called; `None` when it may."""

    async def check(self, scope: "RunScope", tool: ToolInfo, call_id: str) -> Any:
        """Authorize one call, as the SDK's guardrail output."""

    async def ask_unguarded(self, scope: "RunScope", context: Any, agent: Any, tool: Any) -> None:
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

    def began(self, key: object, agent: str, asked: Any) -> None:
        """Record that a call started."""

    def first_chunk(self, key: object) -> None:
        """Record the first chunk of a streamed answer."""

    def ended(self, key: object, usage: Usage) -> None:
        """Record that a call has its answer."""

    def broke_off(self, key: object, error: BaseException | None) -> None:
        """Record that the SDK run failed during a call."""

    def close(self) -> None:
        """Record the end of every call still in flight."""


@define(eq=False)
class RunScope:
    """The run of one request."""

    run: RunContext
    provider: ModelProvider | None
    """Where models come from; `None` leaves it to the SDK."""
    loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop)
    channel: EventChannel[RunEvent] = field(factory=EventChannel)
    live: bool = True
    """Whether somebody reads the events as they come. If not, upstreams need not stream."""
    system: str | None = None
    """The client's system messages, to be added to the instructions of the agent that it talks to."""
    settings: Mapping[str, Any] = field(factory=dict)
    """Sampling settings of the request, for agents that leave them open."""
    hold_answers: bool = True
    """Whether an answer is held back until its output guardrails passed."""
    terminal: TerminalRuns | None = None
    """For a workflow: which of its runs answer the client."""
    text: str = ""
    """What the user wrote last."""
    steps_sent: bool = False
    """Whether a run that does not answer the client has told anything."""
    may_pause: bool = False
    """Whether the run may stop to wait for a person's approval, and go on later."""
    history: Sequence[Mapping[str, Any]] = ()
    """For a workflow that takes only text: the earlier turns."""
    runs: int = 0
    """How many runs a workflow has started."""
    said: str = ""
    """For a workflow: the answer as far as its answering runs have told it."""
    last_output: Any = None
    """For a workflow: the output of the last run that was no mere step, else of the last run."""
    usage: Usage = Usage()
    """Tokens so far, of every model call inside this scope."""
    finish_reason: str | None = None
    """How the last model's answer ended, where the upstream says so."""
    refused: bool = False
    """Whether a model refused, or its provider filtered the answer."""
    entry: AgentEntry | None = None
    """The served agent that the request is for."""
    tools: ToolCalls | None = None
    """Who decides on tool calls and hears of them; without one, nobody does."""
    cross_agent: AgentAuthorization | None = None
    """Who decides on other served agents that the run comes to; without one, nobody does."""
    models: ModelCallRecorder | None = None
    """Who hears of models' calls; without one, nobody does."""
    calls: dict[int, ActiveToolCall] = field(factory=dict)
    """The tool calls that are on."""
    tool_calls: int = 0
    """How many tool calls there have been."""
    tasks: int = 0
    """How many of the tasks are on that were started in it."""
    fatal: GatewayError | None = None
    """What ends the run badly, although the agent's code may have caught it."""


@define(eq=False)
class Position:
    """Where in a scope the code that runs now stands."""

    scope: RunScope
    depth: int
    """0 outside any run; each run that is started inside a run is one deeper."""
    answers: bool = False
    """Whether the run that is on speaks to the client. What runs inside it does not."""


POSITION: ContextVar[Position | None] = ContextVar("agent_gateway_position", default=None)
"""Set while code of an agent runs for a request."""
