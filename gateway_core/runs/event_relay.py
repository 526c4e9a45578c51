"""Converts the SDK's events and items of one run to the gateway's RunEvents.

It does not render them and is independent of the client's protocol. The same rules apply to a streamed run and to the
items of a completed run, so that a client gets the same text in both cases.
"""

import json
from collections.abc import Iterable
from typing import Any

import attrs
from agents import Agent
from agents.items import (
    HandoffOutputItem,
    ItemHelpers,
    MessageOutputItem,
    ModelResponse,
    ReasoningItem,
    RunItem,
    ToolCallItem,
    ToolCallOutputItem,
)
from openai.types.responses import ResponseOutputMessage, ResponseReasoningItem
from pydantic import TypeAdapter

from gateway_core.runs.call_details import (
    HOSTED_CALLS,
    as_plain,
    call_arguments,
    call_id,
    call_name,
    get,
    hosted_media,
    hosted_output,
    is_hosted_output,
    output_media,
)
from gateway_core.runs.run_events import AgentChanged, Citation, ReasoningDelta, TextDelta, ToolFinished, ToolStarted
from gateway_core.runs.run_scope import RunScope

PARAGRAPH = "\n\n"
_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_REASONING = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
# Whether a shell runs here or at the model's server is known only when the server sends its output.
_PERHAPS_HOSTED = ("program", "shell_call")
_MEDIA_FIELDS = ("image_url", "file_data", "file_id", "file_url")
_HOSTED_OUTPUTS = ("program_output", "shell_call_output")


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
        self._held_citations: list[Citation] = []
        self._answer: list[str] = []
        self._agent = agent.name
        self._tools: dict[str, str] = {}
        self._perhaps_hosted: dict[str, Any] = {}
        self._from_stream: set[str] = set()
        self._wrote = False
        self._pending_break = False
        self._output_sent = False

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
        """Send the held text with its citations, and stop holding text."""
        held, self._held = self._held, None
        if held:
            self._put(self._text("".join(held)))
        for citation in self._held_citations:
            self._put(citation)
        self._held_citations = []

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
            self._cite(raw)
            if refusal := _refusal(raw):
                self._scope.refused = True
                self._write(refusal)
        elif isinstance(item, ReasoningItem):
            for part in (*item.raw_item.summary, *(item.raw_item.content or ())):
                self._put(ReasoningDelta(part.text))
        elif isinstance(item, ToolCallItem):
            if call_id(raw) not in self._from_stream and not self._is_for_client(item.agent, raw):
                self._start_tool(raw, item.tool_name)
                if get(raw, "type") in HOSTED_CALLS:
                    self._finish_hosted(raw)
        elif isinstance(item, ToolCallOutputItem):
            self._finish_tool(raw, item.output)
        elif isinstance(item, HandoffOutputItem):
            self._set_agent(item.target_agent.name)

    def cut_off(self, agent: Agent[Any], response: ModelResponse) -> None:
        """Relay the text of a response that was cut off, from which the SDK could not create items."""
        for raw in response.output:
            if isinstance(raw, ResponseOutputMessage):
                self.item(MessageOutputItem(agent, raw))
            elif isinstance(raw, ResponseReasoningItem):
                self.item(ReasoningItem(agent, raw))

    def resume(self, decided: Iterable[Any]) -> None:
        """Relay the start of the tool calls with which a paused run resumes."""
        for item in decided:
            if not self._is_for_client(item.agent, item.raw_item):
                self._start_tool(item.raw_item, item.name)

    def finish(self, final_output: Any) -> None:
        """Complete the run: relay its output if no message contained it, as with `stop_on_first_tool`."""
        if self._answers and not self._output_sent and final_output is not None:
            self._start_message()
            self._write(as_text(final_output))
        self.release()

    def _is_for_client(self, agent: Any, raw: Any) -> bool:
        """Whether a call is one of the client's tools, which the run does not execute."""
        tools = self._scope.client_tools
        return self._answers and tools is not None and tools.owns(agent, get(raw, "name"))

    def _start_tool(self, raw: Any, name: str | None = None) -> None:
        name = self._tools[call_id(raw)] = call_name(raw, name)
        if get(raw, "type") in HOSTED_CALLS:
            self._put(ToolStarted(call_id(raw), name, "", hosted=as_plain(raw)))
        else:
            self._put(ToolStarted(call_id(raw), name, call_arguments(raw)))

    def _finish_tool(self, raw: Any, output: Any) -> None:
        if is_hosted_output(raw):
            if call_id(raw) in self._from_stream:
                return
        else:
            # The output of a tool that ran here may be the run's output, even if the model wrote text next to the call.
            self._output_sent = False
        if self._answers and self._scope.client_tools and call_id(raw) in self._scope.client_tools.results:
            return
        name = self._tools.get(call_id(raw), "tool")
        failed = call_id(raw) in self._scope.failed_calls
        text = output_text(output)
        if self._scope.tool_errors and (error := self._scope.tool_errors.get(call_id(raw))):
            text = f"{text}\n{error}"
        self._put(ToolFinished(call_id(raw), name, text, output_media(output), failed=failed))

    def _finish_hosted(self, raw: Any) -> None:
        self._put(
            ToolFinished(
                call_id(raw),
                self._tools[call_id(raw)],
                as_text(hosted_output(raw)),
                hosted_media(raw),
                arguments=call_arguments(raw),
                hosted=as_plain(raw),
                failed=get(raw, "status") == "failed" or bool(get(raw, "error")),
            )
        )

    def _item_added(self, raw: Any) -> None:
        """Relay the start of an item: a message, or a hosted tool, whose arguments are not known yet."""
        kind = get(raw, "type")
        if kind == "message":
            self._start_message()
        elif kind in HOSTED_CALLS:
            self._from_stream.add(call_id(raw))
            self._start_tool(raw)

    def _item_done(self, raw: Any) -> None:
        """Relay the end of an item. The SDK reports hosted tools only after the whole response, behind its text."""
        kind = get(raw, "type")
        if kind == "message":
            self._cite(raw)
        elif kind in HOSTED_CALLS:
            if call_id(raw) not in self._from_stream:
                self._item_added(raw)
            self._finish_hosted(raw)
        elif kind in _PERHAPS_HOSTED:
            self._perhaps_hosted[call_id(raw)] = raw
        elif kind in _HOSTED_OUTPUTS:
            call = self._perhaps_hosted.pop(call_id(raw), None)
            if call is not None and call_id(raw) not in self._tools:
                self._start_tool(call)
            self._finish_tool(raw, hosted_output(raw))
            self._from_stream.add(call_id(raw))

    def _cite(self, message: Any) -> None:
        """Relay the citations of a message whose text is the last that was written."""
        parts = [(get(part, "text") or "", get(part, "annotations")) for part in get(message, "content") or ()]
        if not self._answers or not any(annotations for _, annotations in parts):
            return
        start = len(self.answer) - sum(len(text) for text, _ in parts)
        for text, annotations in parts:
            for annotation in annotations or ():
                citation = Citation(_moved(as_plain(annotation), start))
                if self._held is not None:
                    self._held_citations.append(citation)
                else:
                    self._put(citation)
            start += len(text)

    def _raw(self, data: Any) -> None:
        kind = data.type
        if kind == "response.output_text.delta":
            self._write(data.delta)
        elif kind in _REASONING:
            self._put(ReasoningDelta(data.delta))
        elif kind == "response.refusal.delta":
            self._scope.refused = True
            self._write(data.delta)
        elif kind == "response.output_item.added":
            self._item_added(data.item)
        elif kind == "response.output_item.done":
            self._item_done(data.item)

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
        self._wrote = self._output_sent = True
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


def _moved(annotation: dict[str, Any], by: int) -> dict[str, Any]:
    """Return an annotation of a text that begins at another index."""
    places = ("start_index", "end_index", "index")
    return annotation | {name: annotation[name] + by for name in places if isinstance(annotation.get(name), int)}


def output_text(output: Any) -> str:
    """Convert a tool's output to human-readable text. For structured SDK or MCP output, use the text of its parts."""
    parts = [_part_text(part) for part in (output if isinstance(output, list) else [output])]
    return as_text("\n".join(part for part in parts if part is not None) if parts and None not in parts else output)


def _part_text(part: Any) -> str | None:
    if isinstance(part, str) and part.startswith("data:image/"):
        return "[image]"
    match get(part, "type"), get(part, "text"):
        case "text", str() as text:
            return text
        case "image" | "file" as kind, _ if any(get(part, name) for name in _MEDIA_FIELDS):
            return f"[{kind}]"
    return None


def as_text(value: Any) -> str:
    """Convert a tool's or an agent's output to text: strings stay unchanged, other values become JSON if possible."""
    text = value if isinstance(value, str) else _as_json(value)
    # A lone surrogate cannot be encoded as UTF-8.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _as_json(value: Any) -> str:
    try:
        return json.dumps(_ANY.dump_python(value, mode="json", fallback=_fields), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _fields(value: Any) -> Any:
    return attrs.asdict(value) if attrs.has(type(value)) else str(value)


def _refusal(message: Any) -> str:
    return "".join(getattr(part, "refusal", None) or "" for part in message.content)
