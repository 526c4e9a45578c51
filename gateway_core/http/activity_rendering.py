"""How a chat client shows what an agent does on the way to its answer: one stream of RunEvents, several forms.

A rendering turns tool activity and changes of speaker into what its client shows; text passes as it is. It never makes
`tool_calls` of tools that the gateway ran: that asks a client to run them, and Open WebUI does.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gateway_core.config.settings import RenderingName
from gateway_core.types import (
    AgentChanged,
    ApprovalAsked,
    ReasoningDelta,
    RunEvent,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)


@frozen
class SideEvent:
    """A line of the stream that is no chunk of the answer, for a client that is known to understand it."""

    data: Mapping[str, Any]


Shown = RunEvent | SideEvent

_ACTIVITY = ToolStarted | ToolProgress | ToolFinished | AgentChanged


class Rendering:
    """The form `plain`: text, and no activity. The default, as a program may show the text to anybody.

    Args:
        max_result: How many characters of a tool's arguments or result are shown.
        reasoning: Whether the model's own reasoning is shown.
    """

    def __init__(self, *, max_result: int, reasoning: bool) -> None:
        self._max = max_result
        self._reasoning = reasoning
        self._arguments: dict[str, str] = {}
        self._line_open = False

    def show(self, events: Sequence[RunEvent]) -> Sequence[Shown]:
        """What the client gets for some events, in order."""
        if all(type(event) is TextDelta for event in events):
            if events:
                self._line_open = True
            return events
        shown: list[Shown] = []
        for event in events:
            if isinstance(event, _ACTIVITY):
                shown.extend(self._activity(event))
            elif isinstance(event, ReasoningDelta) and not self._reasoning:
                continue
            elif isinstance(event, ApprovalAsked):
                shown.extend(self._paused())
                shown.append(TextDelta(("\n\n" if self._line_open else "") + question(event)))
            else:
                self._line_open = self._line_open or isinstance(event, TextDelta)
                shown.append(event)
        return shown

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        return ()

    def _paused(self) -> Sequence[Shown]:
        return ()

    def _cut(self, text: str) -> str:
        if len(text) <= self._max:
            return text
        return f"{text[: self._max]}… (cut; {len(text):,} characters in all)"


class ReasoningRendering(Rendering):
    """The form `reasoning`: activity as `reasoning_content`, which LibreChat and others fold away."""

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        match event:
            case ToolStarted():
                return [ReasoningDelta(f"\n\n**{_one_line(event.name)}** {_code(self._cut(event.arguments))}\n")]
            case ToolProgress():
                return [ReasoningDelta(f"\n{_code(self._cut(event.message))}\n")]
            case ToolFinished():
                return [ReasoningDelta(f"\n{_fenced(self._cut(event.output))}\n\n")]
            case AgentChanged():
                return [ReasoningDelta(f"\n\n→ **{_one_line(event.name)}**\n\n")]


class OpenWebUIRendering(Rendering):
    """The form `openwebui`: a status line while a tool works, and a folded block in the text when it is through."""

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        match event:
            case ToolStarted():
                self._arguments[event.call_id] = event.arguments
                return [_status(f"{_one_line(event.name)} …", done=False)]
            case ToolProgress():
                return [_status(_one_line(self._cut(event.message)), done=False)]
            case ToolFinished():
                # The block says what the line said, so the line goes.
                return [_status(_one_line(event.name), done=True, hidden=True), TextDelta(self._block(event))]
            case AgentChanged():
                return [_status(f"{_one_line(event.name)} answers", done=True)]

    def _paused(self) -> Sequence[Shown]:
        return [_status("waiting for approval", done=True)]

    def _block(self, event: ToolFinished) -> str:
        attributes = {
            "type": "tool_calls",
            "done": "true",
            "id": event.call_id,
            "name": event.name,
            "arguments": self._cut(_compact(self._arguments.pop(event.call_id, "{}"))),
            "result": json.dumps(self._cut(event.output), ensure_ascii=False),
            "files": "",
        }
        written = " ".join(f'{name}="{_attribute(value)}"' for name, value in attributes.items())
        # A block must begin and end a paragraph of its own, or it is shown as text.
        before = "\n\n" if self._line_open else ""
        self._line_open = False
        return f"{before}<details {written}>\n<summary>Tool Executed</summary>\n</details>\n\n"


_RENDERINGS: Mapping[RenderingName, type[Rendering]] = {
    "plain": Rendering,
    "reasoning": ReasoningRendering,
    "openwebui": OpenWebUIRendering,
}


def make(name: RenderingName, *, max_result: int, reasoning: bool) -> Rendering:
    """The rendering of one answer; it keeps what it must know of the answer so far."""
    return _RENDERINGS[name](max_result=max_result, reasoning=reasoning)


_BLOCK = re.compile(r'<details type="(?:tool_calls|reasoning)"[^>]*>.*?</details>\s*', re.DOTALL)


def without_blocks(text: str) -> str:
    """An earlier answer as the agent gave it: a UI may send back the blocks that it was shown."""
    return _BLOCK.sub("", text) if '<details type="' in text else text


def question(event: ApprovalAsked) -> str:
    """What a person is asked, in the chat."""
    # Whoever approves must see what: arguments are never cut here.
    calls = "\n".join(f"- **{_one_line(call.name)}** {_code(_compact(call.arguments))}" for call in event.calls)
    minutes = max(1, round(event.seconds / 60))
    return (
        f"Approval needed to go on:\n\n{calls}\n\nAnswer **approve** or **reject** within {minutes} "
        f"minute{'s' if minutes > 1 else ''}. ({event.id})"
    )


def _status(description: str, *, done: bool, hidden: bool = False) -> SideEvent:
    data = {"description": description, "done": done} | ({"hidden": True} if hidden else {})
    return SideEvent({"event": {"type": "status", "data": data}})


def _attribute(value: str) -> str:
    # Line ends would end the block's first line, and with it the block.
    return html.escape(value, quote=True).replace("\r", "&#13;").replace("\n", "&#10;")


def _compact(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False)
    except ValueError:
        return arguments


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _code(text: str) -> str:
    fence = "`" * (_longest_run(text) + 1)
    return f"{fence}{_one_line(text)}{fence}" if fence == "`" else f"{fence} {_one_line(text)} {fence}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
