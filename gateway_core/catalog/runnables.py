"""What can run: an Agent, a workflow or function that runs agents by itself, or the diagnosis of one that is broken.

Values only; what a module offers is found in `catalog/export_resolver.py`, and the runs are in `runs/`.
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
    """What a function that runs agents by itself takes."""

    TEXT = "text"
    """What the user wrote last, alone or as a field of an input type."""
    MESSAGES = "messages"
    """The whole conversation, as a list of messages."""


@frozen
class AgentRunnable:
    """An Agent of the SDK."""

    agent: Agent[Any]
    build_context: Callable[..., Any] | None = None
    """Makes the author's own `context` for a run, from the run's information."""

    def context_for(self, run: RunContext) -> Any:
        """The `context` of a run: the author's own, else the run's information."""
        if self.build_context is None:
            return run
        return self.build_context(run) if inspect.signature(self.build_context).parameters else self.build_context()

    @property
    def agents(self) -> list[Agent[Any]]:
        """Every agent that a run of it can reach."""
        return reachable(self.agent)


@frozen
class WorkflowRunnable:
    """A coroutine function, or an asynchronous generator of text, that runs agents by itself."""

    function: Callable[..., Any]
    takes: InputKind = InputKind.TEXT
    input_type: Callable[..., Any] | None = None
    """What to build from the request and pass, such as the module's `WorkflowInput`; without one, the text itself."""
    agents: tuple[Agent[Any], ...] = ()
    """The agents at the module's top level, so that they can be equipped."""
    terminal: TerminalRuns = field(init=False, repr=False, eq=False)
    """Which of its runs answer the client."""

    @terminal.default
    def _read_terminal(self) -> TerminalRuns:
        return TerminalRuns(self.function)


@frozen
class DiagnosisRunnable:
    """Stands in for an agent that could not be loaded, and answers with the reason."""

    text: str
    agents: tuple[Agent[Any], ...] = ()


Runnable = AgentRunnable | WorkflowRunnable | DiagnosisRunnable
