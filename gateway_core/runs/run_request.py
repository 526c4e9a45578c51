"""The request that an HTTP surface passes to the engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from gateway_core.runs.approvals import Verdict
from gateway_core.types import AnswerFormat, BackgroundTask, ClientToolOffer, RunContext, ServedAgent


@frozen
class RunRequest:
    """A request to run an agent."""

    served: ServedAgent
    run: RunContext
    items: Sequence[Mapping[str, Any]]
    """The conversation, as input items of the Responses format."""
    text: str
    """The last user message, for workflows that take text."""
    live: bool
    """Whether the client streams the events."""
    system: str | None = None
    settings: Mapping[str, Any] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    """The request's `metadata`, for workflows whose input has further fields."""
    answer_format: AnswerFormat | None = None
    """The format of the answer, for agents without an output type."""
    client_tools: ClientToolOffer | None = None
    """The client's tools; `None` if the agent does not accept any."""
    ignored_tools: tuple[str, ...] = ()
    """Names of the client's tools that are not offered to the agent; `*` for all of them."""
    task: BackgroundTask | None = None
    """The background task to answer instead of running the agent."""
    show_tool_errors: bool = False
    """Whether the client sees the exceptions of failed tools."""
    verdict: tuple[str, Verdict] | None = None
    """The id of an approval request of an earlier run and the user's verdict, if the surface provides them."""
