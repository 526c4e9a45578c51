"""Reads the dialects of model servers: turns their chat completions, whole and streamed, into the form of OpenAI's.

It works on parsed JSON and does no input or output. Servers differ in what identifies a tool call, in the places of
text, reasoning and usage, and in the names of finish reasons. A request asks for one choice only, so the index of a
choice has no meaning. Tool calls of a stream are collected and passed on whole, because their parts can only be
distinguished when all of them are known; nothing waits for a part of a call.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

_CALL_FIELDS = frozenset({"index", "id", "type", "function", "name", "arguments", "parameters", "input"})
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_MAPPED = {
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_use", "tool_call", "function_calls"), "tool_calls"),
    **dict.fromkeys(
        ("safety", "recitation", "blocklist", "prohibited_content", "spii", "refusal", "guardrail", "sensitive"),
        "content_filter",
    ),
}
_FAILURES = frozenset(
    {
        "error",
        "failed",
        "failure",
        "abort",
        "aborted",
        "cancelled",
        "canceled",
        "engine_overloaded",
        "insufficient_system_resource",
        "malformed_function_call",
        "network_error",
        "timeout",
        "unexpected_tool_call",
    }
)


class DialectError(Exception):
    """An answer that cannot be read, or that its server reports as failed. The text is safe to show to a client."""


@define
class _Call:
    id: str
    name: str
    given: str
    """The id that the server gave; not unique."""
    arguments: str = ""
    extra: dict[str, Any] = field(factory=dict)
    """Fields of the provider, which expects them back, such as Gemini's signature of its thoughts."""

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object. `{}` may be a placeholder for arguments that follow."""
        return _is_object(self.arguments) and self.arguments.strip() != "{}"


@define
class Answer:
    """The state of one answer.

    Args:
        known_ids: The ids of tool calls that the conversation contains. A call of this answer never has one of them.
    """

    known_ids: set[str] = field(factory=set)
    structured: bool = False
    """Whether JSON was requested. Text around it, such as a code fence, is removed then."""
    finish_reason: str | None = None
    _calls: list[_Call] = field(factory=list)
    _text: list[str] | None = field(factory=list)
    """The text of a structured answer that is withheld; `None` once it turned out to be JSON."""
    _by_index: dict[Any, _Call] = field(factory=dict)

    def whole(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chat completion.

        Raises:
            DialectError: The server reports a failure.
        """
        answer = dict(value)
        choices = []
        for choice in _objects(value.get("choices"))[:1]:
            message = dict(choice.get("message") or choice.get("delta") or {})
            if isinstance(choice.get("text"), str):
                message.setdefault("content", choice["text"])
            self._read_message(message, streamed=False)
            if self.structured and isinstance(message.get("content"), str):
                message["content"] = json_within(message["content"])
            self.finish_reason = self._finish(choice.get("finish_reason")) or "stop"
            if calls := self._take_calls(with_index=False):
                message["tool_calls"] = calls
                if self.finish_reason in ("stop", "function_call"):
                    self.finish_reason = "tool_calls"
            message.setdefault("role", "assistant")
            choices.append({**choice, "index": 0, "message": message, "finish_reason": self.finish_reason})
        if choices or "choices" in answer:
            answer["choices"] = choices
        answer["usage"] = _usage(value)
        return answer

    def chunk(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chunk of a stream. Tool calls are withheld until the answer's end.

        Raises:
            DialectError: The server reports a failure.
        """
        choices = []
        for choice in _objects(value.get("choices")):
            delta = dict(choice.get("delta") or choice.get("message") or {})
            if isinstance(choice.get("text"), str):
                delta.setdefault("content", choice["text"])
            self._read_message(delta, streamed=True)
            if delta.get("role") not in ("assistant", None):
                delta["role"] = "assistant"
            reason = self._finish(choice.get("finish_reason"))
            if self.structured and self._text is not None:
                self._withhold(delta, ended=reason is not None)
            if reason is not None:
                calls = self._take_calls(with_index=True)
                if calls:
                    delta["tool_calls"] = calls
                    reason = "tool_calls" if reason in ("stop", "function_call") else reason
                self.finish_reason = reason
            choices.append({**choice, "index": 0, "delta": delta, "finish_reason": reason})
        return {**value, "choices": choices, "usage": _usage(value)}

    def _withhold(self, delta: dict[str, Any], *, ended: bool) -> None:
        """Withhold text until it is known to be JSON, or is complete: no client reads a fence around it."""
        assert self._text is not None
        self._text.append(delta.pop("content", None) or "")
        text = "".join(self._text)
        if ended or text.lstrip()[:1] in ("{", "["):
            delta["content"] = json_within(text) if ended else text
            self._text = None

    def _read_message(self, message: dict[str, Any], *, streamed: bool) -> None:
        """Move text and reasoning to their places, and take the tool calls out."""
        content = message.get("content")
        if isinstance(content, list):
            text, thinking = _texts(content)
            message["content"] = text or None
            if thinking and not message.get("reasoning_content"):
                message["reasoning_content"] = thinking
        elif content is not None and not isinstance(content, str):
            message["content"] = json.dumps(content, ensure_ascii=False)
        reasoning = message.get("reasoning")
        if message.get("reasoning_content") and isinstance(reasoning, str):
            # The same text under both names would be shown twice.
            del message["reasoning"]
        for call in _objects(message.pop("tool_calls", None)):
            self._add(call, streamed=streamed)
        legacy = message.pop("function_call", None)
        if isinstance(legacy, Mapping):
            self._add({"index": "function_call", "function": legacy}, streamed=streamed)

    def _add(self, part: Mapping[str, Any], *, streamed: bool) -> None:
        """Add a tool call, or in a stream a part of one."""
        function = part.get("function")
        function = function if isinstance(function, Mapping) else part
        name, arguments = str(function.get("name") or ""), _arguments(function)
        given, index = str(part.get("id") or ""), part.get("index")
        call = self._by_index.get(index) if streamed else None
        if call is None and streamed and self._calls and (not name or index is None):
            call = self._calls[-1]  # usually, only the first part of a call has a name
        if call is None or self._begins(call, name, given, arguments):
            call = _Call(self._unique(given), name, given)
            self._calls.append(call)
        self._by_index[index] = call
        if call.arguments.strip() == "{}" and arguments.lstrip().startswith("{"):
            call.arguments = ""  # it was a placeholder
        call.arguments += arguments
        call.extra |= {key: value for key, value in part.items() if key not in _CALL_FIELDS}

    def _begins(self, call: _Call, name: str, given: str, arguments: str) -> bool:
        """Whether a part with the index of a call begins another one. Servers repeat indexes, and ids, too."""
        if not name:
            return False
        if given != call.given and given and call.given:
            return True
        return name != call.name or (call.is_whole and arguments.lstrip().startswith("{"))

    def _unique(self, given: str) -> str:
        taken = {call.id for call in self._calls}
        if given and given not in taken and given not in self.known_ids:
            return given
        return f"call_{uuid.uuid4().hex[:24]}"

    def _take_calls(self, *, with_index: bool) -> list[dict[str, Any]]:
        calls = [
            {
                **call.extra,
                **({"index": position} if with_index else {}),
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for position, call in enumerate(self._calls)
        ]
        self._calls, self._by_index = [], {}
        return calls

    def _finish(self, reason: Any) -> str | None:
        """OpenAI's name for a finish reason; or `None`.

        Raises:
            DialectError: It means that the answer failed.
        """
        if not isinstance(reason, str) or reason in ("", "null"):
            return None
        name = reason.casefold()
        if name in _FAILURES:
            raise DialectError("the upstream reported that the answer failed")
        return name if name in FINISH_REASONS else _MAPPED.get(name, "stop")


def merge_chunks(chunks: Iterable[Any]) -> dict[str, Any]:
    """Merge the chunks of a stream, as parsed, into one chat completion. Tool calls stay in parts, in their order."""
    merged: dict[str, Any] = {"choices": []}
    text: list[str] = []
    message: dict[str, Any] = {"role": "assistant"}
    answer = Answer()
    for chunk in chunks:
        if not isinstance(chunk, Mapping) or chunk.get("error"):
            raise DialectError("the upstream reported an error")
        normal = answer.chunk(chunk)
        merged |= {key: value for key, value in normal.items() if key not in ("choices", "usage")}
        merged["usage"] = normal["usage"] or merged.get("usage")
        for choice in normal["choices"]:
            delta = choice["delta"]
            text.append(delta.get("content") or "")
            for key in ("reasoning_content", "reasoning", "refusal"):
                if isinstance(delta.get(key), str):
                    message[key] = message.get(key, "") + delta[key]
            message["tool_calls"] = [*message.get("tool_calls", ()), *delta.get("tool_calls", ())]
    message["content"] = "".join(text) or None
    if answer.finish_reason is None:
        raise DialectError("the upstream's stream ended without a finish reason")
    return {
        **merged,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
    }


def call_ids(messages: Iterable[Any]) -> set[str]:
    """The ids of the tool calls in a conversation, as chat messages."""
    return {
        str(call.get("id"))
        for message in messages
        if isinstance(message, Mapping)
        for call in _objects(message.get("tool_calls"))
    }


def repair_pairs(messages: Sequence[Any]) -> list[Any]:
    """Make each tool call of a conversation answered by exactly one tool message directly behind, with a unique id.

    Clients' histories and stored memories may contain calls without ids, or ids that repeat; OpenAI rejects both.

    Args:
        messages: Chat messages; not modified.
    """
    repaired: list[Any] = []
    taken: set[str] = set()
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        if not isinstance(message, Mapping) or not message.get("tool_calls"):
            repaired.append(message)
            continue
        calls = [dict(call) for call in _objects(message["tool_calls"])]
        answers = []
        while position < len(messages) and _role(messages[position]) == "tool":
            answers.append(dict(messages[position]))
            position += 1
        for call in calls:
            given = str(call.get("id") or "")
            answer = next((each for each in answers if str(each.get("tool_call_id") or "") == given), None)
            if answer is not None:
                answers.remove(answer)
            call["id"] = given if given and given not in taken else f"call_{uuid.uuid4().hex[:24]}"
            taken.add(call["id"])
            call["_answer"] = answer
        answered = [(call, call.pop("_answer")) for call in calls]
        repaired.append({**message, "tool_calls": calls})
        for call, answer in answered:
            answer = answer or (answers.pop(0) if answers else {"role": "tool", "content": "(no result)"})
            repaired.append({**answer, "tool_call_id": call["id"]})
    return repaired


def json_within(text: str) -> str:
    """The JSON object or array in a text: as it is, behind `</think>`, in a code fence, or between other words.

    Returns the text itself if it contains none.
    """
    candidates = [text, text.rpartition("</think>")[2]]
    candidates += _FENCE.findall(candidates[1])
    for opening, closing in ("{}", "[]"):
        start, end = candidates[1].find(opening), candidates[1].rfind(closing)
        if 0 <= start < end:
            candidates.append(candidates[1][start : end + 1])
    return next((each.strip() for each in candidates if _is_json(each)), text)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _role(message: Any) -> str | None:
    return message.get("role") if isinstance(message, Mapping) else None


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _arguments(function: Mapping[str, Any]) -> str:
    value = next((function[key] for key in ("arguments", "parameters", "input") if function.get(key) is not None), "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _texts(parts: Iterable[Any]) -> tuple[str, str]:
    """The text and the reasoning of content parts."""
    text: list[str] = []
    thinking: list[str] = []
    for part in parts:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Mapping):
            kind = part.get("type")
            value = next((part[key] for key in ("text", "thinking", "reasoning", "content") if part.get(key)), "")
            if isinstance(value, list):
                value = "".join(_texts(value))
            (thinking if kind in ("thinking", "reasoning") else text).append(value if isinstance(value, str) else "")
    return "".join(text), "".join(thinking)


def _usage(value: Mapping[str, Any]) -> Any:
    """The usage, which some servers put into the choice or another field."""
    places = [value, *_objects(value.get("choices")), value.get("x_groq"), value.get("x_upstream")]
    for place in places:
        usage = place.get("usage") if isinstance(place, Mapping) else None
        if isinstance(usage, Mapping) and usage:
            cached = usage.get("cached_tokens")
            if isinstance(cached, int) and not usage.get("prompt_tokens_details"):
                return {**usage, "prompt_tokens_details": {"cached_tokens": cached}}
            return usage
    return None
