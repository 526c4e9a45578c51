"""Reads the dialects of model servers: turns their chat completions, whole and streamed, into the form of OpenAI's.

It works on parsed JSON and does no input or output. Servers differ in what identifies a tool call, in the places of
text, reasoning and usage, and in the names of finish reasons. A request asks for one choice only, so the index of a
choice has no meaning. Tool calls of a stream are collected and passed on whole, because their parts can only be
distinguished when all of them are known; nothing waits for a part of a call.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field

from gateway_plugins.upstreams.structured_text import ObjectText, is_json, json_within

_CALL_FIELDS = frozenset({"index", "id", "type", "function", "name", "arguments", "parameters", "input"})
_MAX_DEPTH = 8
_TEXT_KEYS = ("text", "thinking", "reasoning", "content", "refusal", "value")
FINISH_REASONS = {"stop": 0, "function_call": 1, "tool_calls": 1, "length": 2, "content_filter": 3}
"""OpenAI's finish reasons, by severity."""
_MEANINGS = (
    (("length", "max", "limit", "window", "incomplete", "truncat"), "length"),
    (
        ("safety", "filter", "block", "prohibit", "recitation", "spii", "refus", "guardrail", "sensitive"),
        "content_filter",
    ),
    (("error", "fail", "abort", "cancel", "overload", "insufficient", "malformed", "timeout", "unexpected"), "error"),
    (("tool", "function"), "tool_calls"),
)
"""Words in other names of finish reasons; a name without any of them means `stop`."""
_TYPES = {"annotations": list, "audio": dict, "thinking_blocks": list, "reasoning_details": list}


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
        return is_json(self.arguments, dict) and self.arguments.strip() != "{}"


@define
class Answer:
    """The state of one answer.

    Args:
        known_ids: The ids of tool calls that the conversation contains. A call of this answer never has one of them.
        structured: Whether JSON was requested. Text around it, such as a code fence, is removed then.
    """

    known_ids: set[str] = field(factory=set)
    structured: bool = False
    finish_reason: str | None = None
    """The most severe one so far: a later `stop` does not make a truncated answer whole."""
    _usage: Any = None
    _calls: list[_Call] = field(factory=list)
    _by_index: dict[Any, _Call] = field(factory=dict)
    _text: ObjectText = field(factory=ObjectText)
    _half: str = ""
    """The first half of a surrogate pair, whose second half is in the next chunk."""

    def whole(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chat completion.

        Raises:
            DialectError: The server reports a failure, or the answer is invalid.
        """
        _check(value)
        message: dict[str, Any] = {}
        choices = objects(value.get("choices"))
        for choice in choices:
            _join(message, self._read(choice, streamed=False))
        calls = self._take_calls(with_index=False)
        if calls:
            message["tool_calls"] = calls
        elif self.structured and isinstance(message.get("content"), str):
            message["content"] = json_within(message["content"])
        self._end_reason(bool(calls))
        answer = {**value, "usage": _usage(value)}
        if choices:
            message = {"role": "assistant", "content": None, **message}
            answer["choices"] = [{"index": 0, "message": message, "finish_reason": self.finish_reason}]
        return answer

    def chunk(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chunk of a stream. Tool calls, the finish reason and the usage are withheld until `end`.

        Raises:
            DialectError: The server reports a failure, or the chunk is invalid.
        """
        _check(value)
        delta: dict[str, Any] = {}
        for choice in objects(value.get("choices")):
            _join(delta, self._read(choice, streamed=True))
        if self.structured and isinstance(delta.get("content"), str):
            delta["content"] = self._text.feed(delta["content"])
        self._usage = _usage(value) or self._usage
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return {**value, "choices": [choice] if delta else [], "usage": None}

    def end(self) -> dict[str, Any]:
        """The last chunk of a stream: tool calls, withheld text, finish reason and usage.

        Raises:
            DialectError: No finish reason was sent.
        """
        if self.finish_reason is None:
            raise DialectError("the upstream's stream ended without a finish reason")
        delta: dict[str, Any] = {}
        if self.structured and (text := self._text.rest()):
            delta["content"] = text
        if calls := self._take_calls(with_index=True):
            delta["tool_calls"] = calls
        self._end_reason(bool(calls))
        return {
            "id": "chatcmpl-end",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "",
            "choices": [{"index": 0, "delta": delta, "finish_reason": self.finish_reason}],
            "usage": self._usage,
        }

    def _read(self, choice: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
        """The message of a choice in OpenAI's form, without its tool calls, which are kept."""
        message = _message(choice.get("message")) | {
            key: value for key, value in _message(choice.get("delta")).items() if value is not None
        }
        if message.get("content") is None and isinstance(choice.get("text"), str):
            message["content"] = choice["text"]
        self._note_finish(choice.get("finish_reason"))
        self._take_tools(message, streamed=streamed)
        if message.get("role") is not None:
            message["role"] = "assistant"
        content = message.get("content")
        if isinstance(content, list | Mapping):
            text, thinking = _texts(content)
            message["content"] = text or None
            if thinking and not message.get("reasoning_content"):
                message["reasoning_content"] = thinking
        elif content is not None and not isinstance(content, str):
            message["content"] = json.dumps(content, ensure_ascii=False)
        for name in ("reasoning_content", "reasoning", "refusal"):
            if isinstance(message.get(name), list | Mapping):
                message[name] = "".join(_texts(message[name]))
            elif not isinstance(message.get(name), str):
                message.pop(name, None)
        if message.get("reasoning_content") and "reasoning" in message:
            # The same text under both names would be shown twice.
            del message["reasoning"]
        for name, kind in _TYPES.items():
            if not isinstance(message.get(name), kind):
                message.pop(name, None)
        for name in ("content", "reasoning_content", "reasoning", "refusal"):
            if isinstance(message.get(name), str) and not message[name].isascii():
                message[name] = self._without_surrogates(message[name], hold=streamed and name == "content")
        return message

    def _without_surrogates(self, text: str, *, hold: bool) -> str:
        text = self._half + text if hold else text
        self._half = text[-1] if hold and text[-1:] and "\ud800" <= text[-1] <= "\udbff" else ""
        text = text[:-1] if self._half else text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _take_tools(self, message: dict[str, Any], *, streamed: bool) -> None:
        parts = message.pop("tool_calls", None)
        touched: list[_Call] = []
        for part in objects([parts] if isinstance(parts, Mapping) else parts):
            touched.append(self._add(part, touched, streamed=streamed))
        legacy = message.pop("function_call", None)
        if isinstance(legacy, Mapping):
            self._add({"index": "function_call", "function": legacy}, touched, streamed=streamed)

    def _add(self, part: Mapping[str, Any], touched: list[_Call], *, streamed: bool) -> _Call:
        """Add a tool call, or in a stream a part of one.

        Args:
            part: The entry of a list of tool calls.
            touched: The calls of the entries before it in the same list.
            streamed: Whether it may be a part.
        """
        function = part.get("function")
        function = function if isinstance(function, Mapping) else part
        name, arguments = plain_text(function.get("name")), _arguments(function)
        given, index = plain_text(part.get("id")), part.get("index")
        index = index if isinstance(index, int | str) else None
        call = self._by_index.get(index) if streamed else None
        if streamed and given and not name and (call is None or call.given != given):
            # Servers that repeat an index may still name the call of each part.
            call = next((each for each in reversed(self._calls) if each.given == given), call)
        if call is None and streamed and self._calls and (not name or index is None):
            call = self._calls[-1]  # usually, only the first part of a call has a name
        # Two complete entries of one list are two calls, even if they are equal.
        twin = bool(name) and any(call is each for each in touched) and is_json((call and call.arguments) or "{}", dict)
        if call is None or twin or self._begins(call, name, given, arguments):
            call = _Call(self._unique(given), name, given)
            self._calls.append(call)
        self._by_index[index] = call
        if call.arguments.strip() == "{}" and arguments.lstrip().startswith("{"):
            call.arguments = ""  # it was a placeholder
        call.arguments += arguments
        call.extra |= {
            key: value for key, value in part.items() if key not in _CALL_FIELDS and isinstance(value, str | Mapping)
        }
        return call

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

    def _note_finish(self, reason: Any) -> None:
        """Keep the most severe finish reason, by OpenAI's name.

        Raises:
            DialectError: It means that the answer failed, or is not a name.
        """
        if reason is None or reason in ("", "null"):
            return
        if not isinstance(reason, str):
            raise DialectError("the upstream sent an invalid finish reason")
        name = reason.casefold()
        if name not in FINISH_REASONS:
            name = next((known for words, known in _MEANINGS if any(word in name for word in words)), "stop")
        if name == "error":
            raise DialectError("the upstream reported that the answer failed")
        if self.finish_reason is None or FINISH_REASONS[name] > FINISH_REASONS[self.finish_reason]:
            self.finish_reason = name

    def _end_reason(self, has_calls: bool) -> None:
        if self.finish_reason in (None, "stop", "function_call"):
            self.finish_reason = "tool_calls" if has_calls else "stop"


def merge_chunks(chunks: Iterable[Any]) -> dict[str, Any]:
    """Merge the chunks of a stream, as parsed, into one chat completion.

    Raises:
        DialectError: The server reports a failure, or the stream was interrupted.
    """
    answer = Answer()
    merged: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for chunk in chunks:
        if not isinstance(chunk, Mapping):
            raise DialectError("the upstream sent an invalid chunk")
        merged |= {key: value for key, value in chunk.items() if key != "choices"}
        for choice in answer.chunk(chunk)["choices"]:
            _join(message, choice["delta"])
    end = answer.end()
    [choice] = end["choices"]
    _join(message, choice["delta"])
    choice = {"index": 0, "message": message, "finish_reason": choice["finish_reason"]}
    return {**merged, "object": "chat.completion", "choices": [choice], "usage": end["usage"]}


def _check(value: Mapping[str, Any]) -> None:
    choices = objects(value.get("choices"))
    if value.get("error") or value.get("object") == "error" or any(choice.get("error") for choice in choices):
        raise DialectError("the upstream reported an error")


def _message(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    if isinstance(value, str):
        return {"content": value}
    raise DialectError("the upstream sent an invalid message")


def _join(message: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add a part of a message: texts are joined, lists too, other fields are replaced."""
    for key, value in more.items():
        before = message.get(key)
        joined = key != "role" and isinstance(before, str | list) and isinstance(value, type(before))
        if value is not None or key not in message:
            message[key] = before + value if joined else value


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The JSON objects in a list; none if it is not a list."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _arguments(function: Mapping[str, Any]) -> str:
    value = next((function[key] for key in ("arguments", "parameters", "input") if function.get(key) is not None), "")
    return plain_text(value) if isinstance(value, str) else json.dumps(value)


def plain_text(value: Any) -> str:
    """A name or an id as text without lone surrogates, which no request could carry."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _texts(parts: Any, depth: int = 0) -> tuple[str, str]:
    """The text and the reasoning of content parts."""
    text: list[str] = []
    thinking: list[str] = []
    for part in [parts] if isinstance(parts, str | Mapping) else parts if depth < _MAX_DEPTH else ():
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, Mapping):
            value = next((part[key] for key in _TEXT_KEYS if part.get(key)), "")
            if isinstance(value, list | Mapping):
                value = "".join(_texts(value, depth + 1))
            kind = thinking if part.get("type") in ("thinking", "reasoning") else text
            kind.append(value if isinstance(value, str) else "")
    return "".join(text), "".join(thinking)


def _usage(value: Mapping[str, Any]) -> Any:
    """The usage, which some servers put into the choice or another field."""
    places = [value, *objects(value.get("choices")), value.get("x_groq"), value.get("x_upstream")]
    for place in places:
        usage = place.get("usage") if isinstance(place, Mapping) else None
        if isinstance(usage, Mapping) and usage:
            counts = {key: _count(count) for key, count in usage.items() if not isinstance(count, Mapping | list)}
            details = {
                key: each for key, each in usage.items() if isinstance(each, Mapping) and key.endswith("_details")
            }
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, **counts, **details}
            if counts.get("cached_tokens") and "prompt_tokens_details" not in usage:
                usage["prompt_tokens_details"] = {"cached_tokens": counts["cached_tokens"]}
            return usage
    return None


def _count(value: Any) -> int:
    try:
        return max(int(value), 0)
    except (TypeError, ValueError, OverflowError):
        return 0
