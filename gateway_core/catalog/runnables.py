"""Defines the runnables of the catalog: an Agent, a workflow function, or the diagnosis of a broken agent.

Value types only: `catalog/export_resolver.py` creates them, and `runs/` runs them.
"""

import enum
import inspect
from collections.abc import Callable
from typing import Any

from agents import Agent
from attrs import field, frozen

from gateway_core.catalog.agent_graph import reachable
from gateway_core.catalog.workflow_analysis import TerminalRuns
from gateway_core.types import RunContext


class InputKind(enum.Enum):
    """The input of a workflow function."""

    TEXT = "text"
    """The last user message, as text or as a field of an input type."""
    MESSAGES = "messages"
    """The whole conversation, as a list of messages."""
    SCRIPT = "script"
    """No argument: its first run, or its first `input()`, takes the last user message."""


@frozen
class AgentRunnable:
    """An Agent of the SDK."""

    agent: Agent[Any]
    build_context: Callable[..., Any] | None = None
    """Creates the author's own `context` for a run, from the run's context."""

    def context_for(self, run: RunContext) -> Any:
        """Return the SDK `context` of a run: the author's own if there is one, else the `RunContext`."""
        if self.build_context is None:
            return run
        return self.build_context(run) if inspect.signature(self.build_context).parameters else self.build_context()

    @property
    def agents(self) -> list[Agent[Any]]:
        """Every agent that its runs can reach."""
        return reachable(self.agent)


@frozen
class WorkflowRunnable:
    """A function whose own code runs agents: a coroutine function, an async generator function that yields text, or a
    synchronous function, which runs in a thread."""

    function: Callable[..., Any]
    takes: InputKind = InputKind.TEXT
    input_type: Callable[..., Any] | None = None
    """The type of its argument, built from the request, such as the module's `WorkflowInput`; `None` for plain text."""
    agents: tuple[Agent[Any], ...] = ()
    """The agents at the module's top level, to which tools are bound."""
    owner: type | None = None
    """The class of which the function is a method. Each run creates an instance."""
    terminal: TerminalRuns = field(init=False, repr=False, eq=False)
    """The runs that produce the answer."""

    @terminal.default
    def _read_terminal(self) -> TerminalRuns:
        return TerminalRuns(self.function, one_message=self.takes is InputKind.SCRIPT)


@frozen
class DiagnosisRunnable:
    """Stands in for an agent that failed to load; its answer is the reason."""

    text: str
    agents: tuple[Agent[Any], ...] = ()


Runnable = AgentRunnable | WorkflowRunnable | DiagnosisRunnable
