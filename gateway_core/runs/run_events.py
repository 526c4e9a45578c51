"""The events of a run, in the order in which they happen. The HTTP endpoints and the CLI render them.

`RunEvent` is their closed union.
"""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import field, frozen

from gateway_core.errors import GatewayError
from gateway_core.types import Usage


@frozen
class TextDelta:
    """A part of the answer."""

    text: str


@frozen
class ReasoningDelta:
    """A part of the model's reasoning, or of the output of an agent that contributes to the answer."""

    text: str


@frozen
class Media:
    """An image or a file that a tool produced."""

    kind: Literal["image", "file"]
    url: str = field(repr=False)
    """An `http(s)` or `data` URL, or the base64 data of a file."""
    name: str = ""


@frozen
class Citation:
    """A source that the answer cites."""

    data: Mapping[str, Any]
    """An annotation of the Responses API. Its indexes count characters from the start of the whole answer.
    https://platform.openai.com/docs/api-reference/responses/object"""


@frozen
class ToolStarted:
    """A tool call started in the gateway, or at the model's server."""

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it. Empty if unknown: a model's server reports them only when its tool has finished."""
    hosted: Mapping[str, Any] | None = field(default=None, repr=False)
    """For a tool that the model's server runs: the call as an output item of the Responses API, as far as known."""


@frozen
class ToolProgress:
    """A progress message of a running tool."""

    call_id: str
    message: str
    """The message of the tool. It is untrusted data and not a part of the answer."""


@frozen
class ToolFinished:
    """A tool call finished and its output was returned to the model."""

    call_id: str
    name: str
    output: str
    media: tuple[Media, ...] = ()
    arguments: str | None = None
    """JSON, if the arguments were unknown when the call started."""
    hosted: Mapping[str, Any] | None = field(default=None, repr=False)
    """For a tool that the model's server ran: the call as an output item of the Responses API."""
    failed: bool = False
    """Whether the call failed or was refused, so that the output is an error message."""


@frozen
class AgentChanged:
    """A different agent produces the events that follow."""

    name: str


@frozen
class PendingCall:
    """A tool call that waits for human approval, or for the client's result."""

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""


@frozen
class ApprovalAsked:
    """The run waits for a human to approve or reject tool calls."""

    id: str
    """The id that the response must contain. It cannot be guessed."""
    calls: tuple[PendingCall, ...]
    seconds: float
    """Timeout for the response."""


@frozen
class ClientCallsAsked:
    """The run waits for the results of tools that run in the client. The next event is the last."""

    calls: tuple[PendingCall, ...]


@frozen
class Completed:
    """The run completed. `Completed` or `Failed` is always the last event."""

    usage: Usage
    finish_reason: str = "stop"
    """`stop`; `tool_calls` when the run waits for the client's tools; `length` when the model reached its token limit;
    `content_filter` when a guardrail stopped the run, the model refused, or its provider filtered the answer."""


@frozen
class Failed:
    """The run failed. `Completed` or `Failed` is always the last event."""

    error: GatewayError
    usage: Usage = Usage()


RunEvent = (
    TextDelta
    | ReasoningDelta
    | Citation
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | AgentChanged
    | ApprovalAsked
    | ClientCallsAsked
    | Completed
    | Failed
)
