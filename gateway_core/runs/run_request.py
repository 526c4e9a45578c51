"""What a surface asks the engine to run."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from gateway_core.runs.approvals import Verdict
from gateway_core.types import BackgroundTask, RunContext, ServedAgent


@frozen
class RunRequest:
    """What to run."""

    served: ServedAgent
    run: RunContext
    items: Sequence[Mapping[str, Any]]
    """The conversation, as input items of the Responses format."""
    text: str
    """The last thing that the user wrote, for workflows that take text."""
    live: bool
    """Whether the events are read as they come."""
    system: str | None = None
    settings: Mapping[str, Any] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    """The request's own, for workflows whose input has more fields than the text."""
    task: BackgroundTask | None = None
    """What to do instead of running the agent."""
    verdict: tuple[str, Verdict] | None = None
    """What a person said to an earlier run's question, and the question's id, where the surface knows."""
