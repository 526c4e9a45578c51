"""What belongs to one request's run, and reaches every run that the agent starts inside it.

A context variable carries it, so it crosses tasks and tool threads, and no two requests ever share one. Nothing here
starts a run.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from agents import ModelProvider
from attrs import define, field

from gateway_core.errors import GatewayError
from gateway_core.runs.channel import Channel
from gateway_core.terminal_runs import TerminalRuns
from gateway_core.types import AgentEntry, RunContext, RunEvent, Usage

if TYPE_CHECKING:
    from gateway_core.runs.model_calls import ModelCalls
    from gateway_core.runs.others import Others
    from gateway_core.runs.tools import OpenCall, ToolGovernor


@define(eq=False)
class RunScope:
    """The run of one request."""

    run: RunContext
    provider: ModelProvider | None
    """Where models come from; `None` leaves it to the SDK."""
    loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop)
    channel: Channel[RunEvent] = field(factory=Channel)
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
    steps_told: bool = False
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
    tools: "ToolGovernor | None" = None
    """Who decides on tool calls and hears of them; without one, nobody does."""
    others: "Others | None" = None
    """Who decides on other served agents that the run comes to; without one, nobody does."""
    models: "ModelCalls | None" = None
    """Who hears of models' calls; without one, nobody does."""
    calls: "dict[int, OpenCall]" = field(factory=dict)
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
