"""Renders tool activity, handoffs and reasoning in the format that each chat client displays.

Text passes through unchanged. Tools that the gateway ran are never rendered as `tool_calls`: those ask the client to
run the tools, and Open WebUI does run them.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gateway_core.config.settings import ClientsConfig, RenderingName
from gateway_core.runs.run_events import (
    AgentChanged,
    ApprovalAsked,
    Citation,
    Completed,
    Failed,
    Media,
    PendingCall,
    ReasoningDelta,
    RunEvent,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)


@frozen
class SideEvent:
    """A stream event outside the completion chunks, sent only to clients that are known to support it."""

    data: Mapping[str, Any]


@frozen
class ImageDelta:
    """An image next to the text, in the form of OpenRouter's API, sent only to clients that are known to support it."""

    url: str


Shown = RunEvent | SideEvent | ImageDelta

_ACTIVITY = ToolStarted | ToolProgress | ToolFinished | AgentChanged


class Rendering:
    """The rendering `plain`: text without activity. It is the default because any client can show it.

    Args:
        max_result: Maximum number of characters shown of a tool's arguments or result.
        reasoning: Whether to show the model's own reasoning.
        links: Whether to add links to what tools produced to the text.
    """

    def __init__(self, *, max_result: int, reasoning: bool, links: bool) -> None:
        self._max = max_result
        self._reasoning = reasoning
        self._links = links
        self._arguments: dict[str, str] = {}
        self._line_open = False
        self._inserted = 0

    def show(self, events: Sequence[RunEvent]) -> Sequence[Shown]:
        """Returns the rendered events, in order."""
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
                shown.extend(self._approval_status())
                shown.append(self._insert(approval_question(event)))
            elif isinstance(event, Citation):
                # UIs show the URL as a link, which may not run a script.
                if _WEB.match(str(event.data.get("url") or "https:")):
                    shown.append(self._citation(event))
            else:
                self._line_open = self._line_open or isinstance(event, TextDelta)
                shown.append(event)
        return shown

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        return self._media(event.media, event.name) if isinstance(event, ToolFinished) else ()

    def _media(self, media: Sequence[Media], tool: str) -> Sequence[Shown]:
        links = [link for medium in media if self._links and (link := markdown_link(medium, tool))]
        return [self._insert("\n\n".join(links) + "\n\n")] if links else ()

    def _insert(self, text: str) -> TextDelta:
        """Returns text that is not the agent's, as a separate paragraph."""
        text = f"\n\n{text}" if self._line_open else text
        self._line_open = not text.endswith("\n\n")
        self._inserted += len(text)
        return TextDelta(text)

    def _citation(self, event: Citation) -> Shown:
        moved = {name: event.data[name] + self._inserted for name in ("start_index", "end_index") if name in event.data}
        return Citation({**event.data, **moved})

    def _approval_status(self) -> Sequence[Shown]:
        return ()

    def _cut(self, text: str) -> str:
        if len(text) <= self._max:
            return text
        return f"{text[: self._max]}… (truncated; {len(text):,} characters in total)"


class ReasoningRendering(Rendering):
    """The rendering `reasoning`: activity as `reasoning_content`, which LibreChat and other clients collapse."""

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        match event:
            case ToolStarted():
                arguments = f" {_code(self._cut(event.arguments))}" if event.arguments else ""
                return [ReasoningDelta(f"\n\n**{_one_line(event.name)}**{arguments}\n")]
            case ToolProgress():
                return [ReasoningDelta(f"\n{_code(self._cut(event.message))}\n")]
            case ToolFinished():
                arguments = f"\n{_code(self._cut(event.arguments))}\n" if event.arguments else ""
                output = f"{arguments}\n{_fenced(self._cut(event.output))}\n\n"
                return [ReasoningDelta(output), *self._media(event.media, event.name)]
            case AgentChanged():
                return [ReasoningDelta(f"\n\n→ **{_one_line(event.name)}**\n\n")]


class OpenWebUIRendering(Rendering):
    """The rendering `openwebui`: a status line while a tool runs, then a collapsed block in the text."""

    _open_status = ""

    def show(self, events: Sequence[RunEvent]) -> Sequence[Shown]:
        shown = super().show(events)
        if self._open_status and events and isinstance(events[-1], Completed | Failed):
            # Otherwise the status line would show activity for as long as the message exists.
            shown = [*shown[:-1], _status(self._open_status, done=True, hidden=True), shown[-1]]
            self._open_status = ""
        return shown

    def _activity(self, event: _ACTIVITY) -> Sequence[Shown]:
        match event:
            case ToolStarted():
                self._arguments[event.call_id] = event.arguments
                self._open_status = _one_line(event.name)
                return [_status(f"{self._open_status} …", done=False)]
            case ToolProgress():
                return [_status(_one_line(self._cut(event.message)), done=False)]
            case ToolFinished():
                # The block replaces the status line.
                status = _status(_one_line(event.name), done=True, hidden=True)
                self._open_status = ""
                return [status, self._insert(self._block(event)), *self._media(event.media, event.name)]
            case AgentChanged():
                # In the text, the line remains after the message is complete; the next status replaces this one.
                return [self._insert(f"*→ {_one_line(event.name)}*\n\n")]

    def _media(self, media: Sequence[Media], tool: str) -> Sequence[Shown]:
        # Open WebUI stores these images as files of the message, so they do not return as text in the next request.
        images = [ImageDelta(medium.url) for medium in media if medium.kind == "image" and _is_image_url(medium.url)]
        return [*images, *super()._media([medium for medium in media if medium.kind != "image"], tool)]

    def _citation(self, event: Citation) -> Shown:
        if event.data.get("type") == "url_citation":
            return super()._citation(event)
        name = str(event.data.get("filename") or event.data.get("file_id") or "file")
        source = {"source": {"name": name}, "document": [name], "metadata": [{"source": name, "name": name}]}
        return SideEvent({"event": {"type": "source", "data": source}})

    def _approval_status(self) -> Sequence[Shown]:
        return [_status("Waiting for approval", done=True)]

    def _block(self, event: ToolFinished) -> str:
        # Open WebUI parses the block only if it is a separate paragraph; otherwise it shows the markup as text.
        arguments = self._arguments.pop(event.call_id, "")
        attributes = {
            "type": "tool_calls",
            "done": "true",
            **({"status": "failed"} if event.failed else {}),
            "id": event.call_id,
            "name": event.name,
            "arguments": self._cut(_compact(event.arguments or arguments or "{}")),
            "result": json.dumps(self._cut(event.output), ensure_ascii=False),
            "files": "",
        }
        written = " ".join(f'{name}="{_attribute(value)}"' for name, value in attributes.items())
        return f"<details {written}>\n<summary>Tool Executed</summary>\n</details>\n\n"


_RENDERINGS: Mapping[RenderingName, type[Rendering]] = {
    "plain": Rendering,
    "reasoning": ReasoningRendering,
    "openwebui": OpenWebUIRendering,
}


def make(name: RenderingName, config: ClientsConfig, *, is_json: bool = False) -> Rendering:
    """Creates the rendering for one response. A rendering has state, so each response needs its own.

    Args:
        name: The kind of rendering.
        config: The settings `[clients]`.
        is_json: Whether the answer is JSON, to which no link may be added.
    """
    return _RENDERINGS[name](max_result=config.max_result, reasoning=config.reasoning != "none", links=not is_json)


# Each part excludes the characters that begin the next match, so that unclosed ones are not searched repeatedly.
_WEB = re.compile(r"https?:", re.IGNORECASE)
_INLINE_IMAGE = re.compile(r"!\[([^\[\]]*)\]\(data:image/[^()\s]*\)")
_HANDOFF = re.compile(r"^\*→ [^\n]*\*\n\n", re.MULTILINE)
_BLOCK_START = re.compile(r'<details type="(?:tool_calls|reasoning)"')
_BLOCK_END = re.compile(r"</details>\s*")


def strip_blocks(text: str) -> str:
    """Removes rendered blocks and image data from an earlier answer: some UIs send them back with the conversation."""
    if "](data:image/" in text:
        # As text, the data of one image would be hundreds of thousands of tokens.
        text = _INLINE_IMAGE.sub(lambda image: f"[image: {image[1]}]", text)
    text = _HANDOFF.sub("", text)
    # One pass: a single pattern for the whole block would search the rest of the text again for each unclosed block.
    kept: list[str] = []
    position = 0
    while (start := _BLOCK_START.search(text, position)) is not None:
        opened = text.find(">", start.end())
        end = _BLOCK_END.search(text, opened) if opened >= 0 else None
        if end is None:
            break
        kept.append(text[position : start.start()])
        position = end.end()
    return "".join(kept) + text[position:] if kept else text


def markdown_link(medium: Media, tool: str) -> str | None:
    """Returns a Markdown image or link for what a tool produced; `None` if a chat client could not open its URL."""
    name = re.sub(r"[\[\]]", "", _one_line(medium.name or tool))
    if medium.kind == "image" and _is_image_url(medium.url):
        return f"![{name}]({medium.url})"
    return f"[{name}]({medium.url})" if _is_web_url(medium.url) else None


def _is_image_url(url: str) -> bool:
    return bool(re.match(r"data:image/[\w.+-]+;base64,[\w+/=]+\Z", url)) or _is_web_url(url)


def _is_web_url(url: str) -> bool:
    # Other characters could end the link, and add text that is not the agent's.
    return bool(re.match(r"https?://[^\s()<>\[\]\\\"'`]+\Z", url))


def approval_question(event: ApprovalAsked) -> str:
    """Returns the approval request as text, to be shown in the chat."""
    # The approver must see all arguments, so they are never truncated here. The id is in a link definition, which
    # Markdown does not display.
    calls = "\n".join(_pending_call(call) for call in event.calls)
    minutes = max(1, round(event.seconds / 60))
    return (
        f"Approval needed to continue:\n\n{calls}\n\nAnswer **approve** or **reject** within {minutes} "
        f"minute{'s' if minutes > 1 else ''}.\n\n[//]: # ({event.id})"
    )


def _pending_call(call: PendingCall) -> str:
    """Returns a list item with a call; text of several lines, such as a patch, is in blocks below it."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"- **{_one_line(call.name)}** {_code(call.arguments)}"
    blocks = {name: value for name, value in arguments.items() if isinstance(value, str) and "\n" in value.strip()}
    rest = {name: value for name, value in arguments.items() if name not in blocks}
    line = f"- **{_one_line(call.name)}** {_code(json.dumps(rest, ensure_ascii=False))}"
    parts = [line, *(f"{_one_line(name)}:\n\n{_fenced(value)}" for name, value in blocks.items())]
    # A carriage return is a line end in Markdown, too: unindented text behind it would leave the block.
    return "\n\n  ".join(re.sub(r"\r\n?|\n", "\n  ", part) for part in parts)


def _status(description: str, *, done: bool, hidden: bool = False) -> SideEvent:
    data = {"description": description, "done": done} | ({"hidden": True} if hidden else {})
    return SideEvent({"event": {"type": "status", "data": data}})


def _attribute(value: str) -> str:
    # A line break in the opening tag would end the block.
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
