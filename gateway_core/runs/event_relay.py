"""The SDK's events and items of one run become the gateway's RunEvents.

It renders nothing and knows no client. The same rules hold for a run that is followed live and for one that is read
when it is over, so that a client gets the same text either way.
"""

import json
from collections.abc import Iterable
from typing import Any

from agents import Agent
from agents.items import (
    HandoffOutputItem,
    ItemHelpers,
    MessageOutputItem,
    ReasoningItem,
    RunItem,
    ToolCallItem,
    ToolCallOutputItem,
)

from gateway_core.runs.run_scope import RunScope
from gateway_core.types import AgentChanged, ReasoningDelta, TextDelta, ToolFinished, ToolStarted

PARAGRAPH = "\n\n"
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


class EventRelay:
    """Passes on one run.

    Args:
        scope: Whose channel the events go to.
        agent: The agent that the run starts with.
        answers: Whether the run's text is the answer to the client, or only a step on the way to it.
    """

    def __init__(self, scope: RunScope, agent: Agent[Any], *, answers: bool) -> None:
        self._scope = scope
        self._put = scope.channel.put
        self._text = TextDelta if answers else ReasoningDelta
        self._answers = answers
        self._held: list[str] | None = None
        self._told: list[str] = []
        self._agent = agent.name
        self._tools: dict[str, str] = {}
        self._wrote = False
        self._pending_break = False
        self._spoke_last = False

    @property
    def held(self) -> bool:
        """Whether text is waiting for `release`."""
        return self._held is not None

    @property
    def told(self) -> str:
        """What the client has read of this run as its answer."""
        return "".join(self._told)

    def hold(self) -> None:
        """Keep text back until `release`; steps are nobody's answer and need no such care."""
        if self._answers:
            self._held = []

    def release(self) -> None:
        """Let the text go that was held back, and all that follows."""
        held, self._held = self._held, None
        if held:
            self._put(self._text("".join(held)))

    def event(self, event: Any) -> None:
        """One event of a streamed run."""
        if event.type == "raw_response_event":
            self._raw(event.data)
        elif event.type == "run_item_stream_event":
            # Messages were told token by token; handoffs come as a change of agent.
            if not isinstance(event.item, MessageOutputItem | HandoffOutputItem | ReasoningItem):
                self.item(event.item)
        elif event.type == "agent_updated_stream_event":
            self._speaker(event.new_agent.name)

    def item(self, item: RunItem) -> None:
        """One item of a run that is over."""
        raw = item.raw_item
        if isinstance(item, MessageOutputItem):
            self._message_begins()
            self._write(ItemHelpers.text_message_output(item))
            if refusal := _refusal(raw):
                self._scope.refused = True
                self._write(refusal)
        elif isinstance(item, ReasoningItem):
            for part in (*item.raw_item.summary, *(item.raw_item.content or ())):
                self._put(ReasoningDelta(part.text))
        elif isinstance(item, ToolCallItem):
            self._spoke_last = False
            self._tool_starts(raw)
        elif isinstance(item, ToolCallOutputItem):
            call_id = _get(raw, "call_id") or ""
            self._put(ToolFinished(call_id, self._tools.get(call_id, "tool"), output_text(item.output)))
        elif isinstance(item, HandoffOutputItem):
            self._speaker(item.target_agent.name)

    def go_on(self, decided: Iterable[Any]) -> None:
        """The run goes on from where it waited for a person: the calls that waited start now."""
        for item in decided:
            self._tool_starts(item.raw_item)

    def finish(self, final_output: Any) -> None:
        """The run is over: tell its output where no message did, as with `stop_on_first_tool`."""
        if self._answers and not self._spoke_last and final_output is not None:
            self._message_begins()
            self._write(as_text(final_output))
        self.release()

    def _tool_starts(self, raw: Any) -> None:
        call_id = _get(raw, "call_id") or _get(raw, "id") or ""
        name = _get(raw, "name") or _get(raw, "type") or "tool"
        self._tools[call_id] = name
        self._put(ToolStarted(call_id, name, _get(raw, "arguments") or "{}"))

    def _raw(self, data: Any) -> None:
        kind = data.type
        if kind == "response.output_text.delta":
            self._write(data.delta)
        elif kind in _REASONING:
            self._put(ReasoningDelta(data.delta))
        elif kind == "response.refusal.delta":
            self._scope.refused = True
            self._write(data.delta)
        elif kind == "response.output_item.added" and data.item.type == "message":
            self._message_begins()

    def _message_begins(self) -> None:
        self._pending_break = self._wrote

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._pending_break:
            self._pending_break = False
            text = PARAGRAPH + text
        if not self._answers and not self._wrote:
            # Several may think on the way to one answer: each says who it is.
            text = f"{PARAGRAPH if self._scope.steps_sent else ''}{self._agent}: {text}"
            self._scope.steps_sent = True
        self._wrote = self._spoke_last = True
        if self._answers:
            self._told.append(text)
        if self._held is not None:
            self._held.append(text)
        else:
            self._put(self._text(text))

    def _speaker(self, name: str) -> None:
        if name != self._agent:
            self._agent = name
            self._put(AgentChanged(name))


def output_text(output: Any) -> str:
    """A tool's output as people read it: of the parts that the SDK and MCP servers give, the text."""
    parts = [_part_text(part) for part in (output if isinstance(output, list) else [output])]
    return as_text("\n".join(part for part in parts if part is not None) if parts and None not in parts else output)


def _part_text(part: Any) -> str | None:
    match _get(part, "type"), _get(part, "text"):
        case "text", str() as text:
            return text
        case "image" | "file" as kind, _ if _get(part, "image_url") or _get(part, "file_data") or _get(part, "file_id"):
            return f"[{kind}]"
    return None


def as_text(value: Any) -> str:
    """A tool's or an agent's output as text: a string as it is, anything else as JSON where it can be."""
    text = value if isinstance(value, str) else _as_json(value)
    # Half a surrogate pair is no text that could be sent to anybody.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _as_json(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    if callable(dump):
        return str(dump())
    try:
        return json.dumps(value, ensure_ascii=False, default=_jsonable)
    except (TypeError, ValueError):
        return str(value)


def _jsonable(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    fields = getattr(value, "__dataclass_fields__", None)
    return {name: getattr(value, name) for name in fields} if fields else str(value)


def _refusal(message: Any) -> str:
    return "".join(getattr(part, "refusal", None) or "" for part in message.content)


def _get(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)
