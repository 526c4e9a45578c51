"""Converts the SDK's events and items of one run to the gateway's RunEvents.

It does not render them and is independent of the client's protocol. The same rules apply to a streamed run and to the
items of a completed run, so that a client gets the same text in both cases.
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
    """Relays the events of one run.

    Args:
        scope: The scope whose channel receives the events.
        agent: The agent that the run starts with.
        answers: Whether the run's text is the answer to the client; otherwise it is an intermediate step.
    """

    def __init__(self, scope: RunScope, agent: Agent[Any], *, answers: bool) -> None:
        self._scope = scope
        self._put = scope.channel.put
        self._text = TextDelta if answers else ReasoningDelta
        self._answers = answers
        self._held: list[str] | None = None
        self._answer: list[str] = []
        self._agent = agent.name
        self._tools: dict[str, str] = {}
        self._wrote = False
        self._pending_break = False
        self._text_is_last = False

    @property
    def held(self) -> bool:
        """Whether text is held until `release`."""
        return self._held is not None

    @property
    def answer(self) -> str:
        """The text of this run's answer so far; empty for a step."""
        return "".join(self._answer)

    def hold(self) -> None:
        """Hold the answer's text until `release`. The text of steps is not held."""
        if self._answers:
            self._held = []

    def release(self) -> None:
        """Send the held text, and stop holding text."""
        held, self._held = self._held, None
        if held:
            self._put(self._text("".join(held)))

    def event(self, event: Any) -> None:
        """Relay one event of a streamed run."""
        if event.type == "raw_response_event":
            self._raw(event.data)
        elif event.type == "run_item_stream_event":
            # Messages were relayed token by token; handoffs are relayed as a change of agent.
            if not isinstance(event.item, MessageOutputItem | HandoffOutputItem | ReasoningItem):
                self.item(event.item)
        elif event.type == "agent_updated_stream_event":
            self._set_agent(event.new_agent.name)

    def item(self, item: RunItem) -> None:
        """Relay one item of a completed run."""
        raw = item.raw_item
        if isinstance(item, MessageOutputItem):
            self._start_message()
            self._write(ItemHelpers.text_message_output(item))
            if refusal := _refusal(raw):
                self._scope.refused = True
                self._write(refusal)
        elif isinstance(item, ReasoningItem):
            for part in (*item.raw_item.summary, *(item.raw_item.content or ())):
                self._put(ReasoningDelta(part.text))
        elif isinstance(item, ToolCallItem):
            self._text_is_last = False
            self._start_tool(raw)
        elif isinstance(item, ToolCallOutputItem):
            call_id = _get(raw, "call_id") or ""
            self._put(ToolFinished(call_id, self._tools.get(call_id, "tool"), output_text(item.output)))
        elif isinstance(item, HandoffOutputItem):
            self._set_agent(item.target_agent.name)

    def resume(self, decided: Iterable[Any]) -> None:
        """Relay the start of the tool calls with which a paused run resumes."""
        for item in decided:
            self._start_tool(item.raw_item)

    def finish(self, final_output: Any) -> None:
        """Complete the run: relay its output if no message contained it, as with `stop_on_first_tool`."""
        if self._answers and not self._text_is_last and final_output is not None:
            self._start_message()
            self._write(as_text(final_output))
        self.release()

    def _start_tool(self, raw: Any) -> None:
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
            self._start_message()

    def _start_message(self) -> None:
        self._pending_break = self._wrote

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._pending_break:
            self._pending_break = False
            text = PARAGRAPH + text
        if not self._answers and not self._wrote:
            # Several steps may precede one answer: the text of each is prefixed with its agent's name.
            text = f"{PARAGRAPH if self._scope.steps_sent else ''}{self._agent}: {text}"
            self._scope.steps_sent = True
        self._wrote = self._text_is_last = True
        if self._answers:
            self._answer.append(text)
        if self._held is not None:
            self._held.append(text)
        else:
            self._put(self._text(text))

    def _set_agent(self, name: str) -> None:
        if name != self._agent:
            self._agent = name
            self._put(AgentChanged(name))


def output_text(output: Any) -> str:
    """Convert a tool's output to human-readable text. For structured SDK or MCP output, use the text of its parts."""
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
    """Convert a tool's or an agent's output to text: strings stay unchanged, other values become JSON if possible."""
    text = value if isinstance(value, str) else _as_json(value)
    # A lone surrogate cannot be encoded as UTF-8.
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
