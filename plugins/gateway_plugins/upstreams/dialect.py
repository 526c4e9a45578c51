"""Reads the dialects of model servers: turns their chat completions, whole and streamed, into the form of OpenAI's.

It works on parsed JSON and does no input or output. Servers differ in what identifies a tool call, in the places of
text, reasoning and usage, and in the names of finish reasons. A request asks for one choice only, so the index of a
choice has no meaning. Tool calls of a stream are collected and passed on whole, because their parts can only be
distinguished when all of them are known; nothing waits for a part of a call.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, takewhile
from typing import Any

from attrs import define, field

from gateway_plugins.upstreams.finish_reasons import SEVERITY, UNKNOWN, openai_reason
from gateway_plugins.upstreams.framing import DialectError
from gateway_plugins.upstreams.structured_text import ObjectText, json_within
from gateway_plugins.upstreams.tool_calls import CallCollector, count, objects

_MAX_DEPTH = 8
_TEXT_KEYS = ("text", "thinking", "reasoning", "content", "refusal", "value", "summary")
_OTHER_REASONING = ("reasoning", "thinking", "reasoning_details")
"""Fields of the reasoning, of which servers send one or several copies, in place of `reasoning_content`."""
_TOP_TEXT_KEYS = ("response", "content", "text", "delta", "output_text")
_ERROR_KEYS = ("message", "detail", "msg", "error_message", "errors")
"""Texts at the top of an answer without choices that describe an error."""
_HEAD = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
_TYPES = {"annotations": list, "thinking_blocks": list, "reasoning_details": list}


@define
class Answer:
    """The state of one answer.

    Args:
        known_ids: The ids of tool calls that the conversation contains. A call of this answer never has one of them.
        structured: Whether JSON was requested. Text around it, such as a code fence, is removed then.
        tools: The names of the tools that the model may call.
    """

    known_ids: set[str] = field(factory=set)
    structured: bool = False
    tools: frozenset[str] = frozenset()
    finish_reason: str | None = None
    """The most severe one so far: a later `stop` does not make a truncated answer whole."""
    has_output: bool = False
    """Whether there is text or a tool call."""
    _usage: Any = None
    _calls: CallCollector = field(init=False)
    _text: ObjectText = field(factory=ObjectText)
    _half: str = ""
    """The first half of a surrogate pair, whose second half is in the next chunk."""

    def __attrs_post_init__(self) -> None:
        self._calls = CallCollector(self.known_ids, self.tools)

    def whole(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chat completion.

        Raises:
            DialectError: The server reports a failure, or the answer is invalid.
        """
        _check(value)
        choices = _choices(value)
        if not choices:
            raise DialectError("the upstream returned an invalid response")
        message = _merged([self._read(choice, streamed=False) for choice in choices])
        calls = self._calls.take(with_index=False, cut_off=self._is_cut_off)
        if calls:
            message["tool_calls"] = calls
        elif self.structured and isinstance(message.get("content"), str):
            message["content"] = json_within(message["content"])
        self._end_reason(bool(calls))
        message = {"role": "assistant", "content": None, **message}
        choice = {"index": 0, "message": message, "finish_reason": self._sdk_reason(bool(calls))}
        return {**_HEAD, **value, "choices": [choice], "usage": _usage(value)}

    def chunk(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Normalize a chunk of a stream. Tool calls, the finish reason and the usage are withheld until `end`.

        Raises:
            DialectError: The server reports a failure, or the chunk is invalid.
        """
        _check(value)
        delta = _merged([self._read(choice, streamed=True) for choice in _choices(value)])
        if self.structured and isinstance(delta.get("content"), str):
            delta["content"] = self._text.feed(delta["content"])
        usage = _usage(value)
        if self._usage is None or (usage and any(usage.values())):  # some servers send zeros at the end
            self._usage = usage
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return {**value, "choices": [choice] if delta else [], "usage": None}

    def end(self) -> dict[str, Any]:
        """The last chunk of a stream: tool calls, withheld text, finish reason and usage.

        Raises:
            DialectError: No finish reason was sent.
        """
        if self.finish_reason is None:
            raise DialectError("the upstream's stream was interrupted: it ended without a finish reason")
        delta: dict[str, Any] = {}
        if self.structured and (text := self._text.rest()):
            delta["content"] = text
        if calls := self._calls.take(with_index=True, cut_off=self._is_cut_off):
            delta["tool_calls"] = calls
        self._end_reason(bool(calls))
        return {
            "id": "chatcmpl-end",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "",
            "choices": [{"index": 0, "delta": delta, "finish_reason": self._sdk_reason(bool(calls))}],
            "usage": self._usage,
        }

    @property
    def _is_cut_off(self) -> bool:
        return self.finish_reason in ("length", "content_filter")

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
        audio = message.pop("audio", None)  # the SDK does not support it
        if isinstance(audio, Mapping) and not message.get("content"):
            message["content"] = _plain(audio.get("transcript"))
        for name in ("reasoning_content", "refusal"):
            if name in message and (plain := _plain(message.pop(name))) is not None:
                message[name] = plain
        if any(message.get(name) for name in _OTHER_REASONING):
            # The same text under several names would be shown more than once.
            found = (_plain(message.get(name)) for name in ("reasoning_content", *_OTHER_REASONING))
            message["reasoning_content"] = next((text for text in found if text), "")
        for name in ("reasoning", "thinking"):
            message.pop(name, None)
        for name, kind in _TYPES.items():
            if not isinstance(message.get(name), kind):
                message.pop(name, None)
        for name in ("content", "reasoning_content", "refusal"):
            if isinstance(message.get(name), str) and not message[name].isascii():
                message[name] = self._without_surrogates(message[name], hold=streamed and name == "content")
        self.has_output = self.has_output or bool(message.get("content") or message.get("refusal"))
        return message

    def _without_surrogates(self, text: str, *, hold: bool) -> str:
        text = self._half + text if hold else text
        self._half = text[-1] if hold and text[-1:] and "\ud800" <= text[-1] <= "\udbff" else ""
        text = text[:-1] if self._half else text
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _take_tools(self, message: dict[str, Any], *, streamed: bool) -> None:
        self._calls.add(message.pop("tool_calls", None), streamed=streamed)
        legacy = message.pop("function_call", None)
        if isinstance(legacy, Mapping):
            self._calls.add({"index": "function_call", "function": legacy}, streamed=streamed)

    def _note_finish(self, reason: Any) -> None:
        """Keep the most severe finish reason, by OpenAI's name.

        Raises:
            DialectError: It means that the answer failed, or is not a name.
        """
        name = openai_reason(reason)
        if name is not None and (self.finish_reason is None or _severity(name) > _severity(self.finish_reason)):
            self.finish_reason = name

    def _end_reason(self, has_calls: bool) -> None:
        if self.finish_reason == UNKNOWN and not has_calls and not self.has_output:
            raise DialectError("the upstream returned an empty answer with an unknown finish reason")
        if self.finish_reason in (None, "stop", "function_call", UNKNOWN):
            self.finish_reason = "tool_calls" if has_calls else "stop"

    def _sdk_reason(self, has_calls: bool) -> str | None:
        # The SDK fails on `length` without output, and drops the reasoning and the usage. The run's own reason stays.
        return "stop" if self.finish_reason == "length" and not (has_calls or self.has_output) else self.finish_reason


def merge_chunks(answer: Answer, chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the chunks of a stream, as parsed, into one chat completion.

    Raises:
        DialectError: The server reports a failure, or the stream was interrupted.
    """
    merged: dict[str, Any] = {}
    parts: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    for chunk in chunks:
        merged |= {key: value for key, value in chunk.items() if key != "choices"}
        parts += [choice["delta"] for choice in answer.chunk(chunk)["choices"]]
    end = answer.end()
    [choice] = end["choices"]
    parts.append(choice["delta"])
    choice = {"index": 0, "message": _merged(parts), "finish_reason": choice["finish_reason"]}
    return {**_HEAD, **merged, "object": "chat.completion", "choices": [choice], "usage": end["usage"]}


def _check(value: Mapping[str, Any]) -> None:
    """Raise the error that a server reports, in any place."""
    error = value.get("error") or next((each["error"] for each in _choices(value) if each.get("error")), None)
    if not error and value.get("object") == "error":
        error = value
    if not error and not value.get("choices"):
        error = next((value for key in _ERROR_KEYS if isinstance(value.get(key), str | list) and value[key]), None)
    if error:
        reported = error if isinstance(error, Mapping) else {"message": str(error)}
        raise DialectError("the upstream reported an error", reported)


def _choices(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The choices of an answer. Servers with another API, such as Ollama's own, send the message at the top."""
    choices = value.get("choices")
    if isinstance(choices, list | Mapping):
        return objects(choices if isinstance(choices, list) else [choices])
    reason = value.get("finish_reason") or value.get("done_reason") or ("stop" if value.get("done") is True else None)
    message = value.get("message")
    if not isinstance(message, Mapping):
        text = next((value[key] for key in _TOP_TEXT_KEYS if isinstance(value.get(key), str)), None)
        message = {} if text is None else {"content": text}
    return [{"message": message, "finish_reason": reason}] if message or reason else []


def _severity(name: str) -> float:
    return SEVERITY.get(name, 0.5)


def _message(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    if isinstance(value, str):
        return {"content": value}
    raise DialectError("the upstream sent an invalid message")


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts of a message as one: texts are joined, lists too, other fields are replaced."""
    if len(parts) == 1:
        return dict(parts[0])
    fields: dict[str, list[Any]] = {}
    for part in parts:
        for key, value in part.items():
            fields.setdefault(key, []).append(value)
    return {key: values[-1] if key == "role" else _joined(values) for key, values in fields.items()}


def _joined(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    kind = type(known[-1])
    if kind not in (str, list):
        return known[-1]
    last = [*takewhile(lambda value: type(value) is kind, reversed(known))][::-1]
    return "".join(last) if kind is str else [*chain.from_iterable(last)]


def _plain(value: Any) -> str | None:
    """A text, which may be in parts; `None` if it is neither."""
    return "".join(_texts(value)) if isinstance(value, list | Mapping) else value if isinstance(value, str) else None


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
    choices = _choices(value)
    inner = [choice.get(name) for choice in choices for name in ("message", "delta")]
    places = [value, *choices, *inner, value.get("x_groq"), value.get("x_upstream")]
    for place in places:
        usage = place.get("usage") if isinstance(place, Mapping) else None
        if isinstance(usage, Mapping) and usage:
            counts = {key: count(each) for key, each in usage.items() if not isinstance(each, Mapping | list)}
            details = {
                key: each for key, each in usage.items() if isinstance(each, Mapping) and key.endswith("_details")
            }
            prompt, completion = counts.get("input_tokens", 0), counts.get("output_tokens", 0)  # the names of Responses
            usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0, **counts, **details}
            if counts.get("cached_tokens") and "prompt_tokens_details" not in usage:
                usage["prompt_tokens_details"] = {"cached_tokens": counts["cached_tokens"]}
            return usage
    if value.get("done") is True and "eval_count" in value:  # Ollama's own names
        prompt, completion = count(value.get("prompt_eval_count")), count(value["eval_count"])
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return None
