"""Reads the dialects of servers of the Responses API: turns responses, whole and streamed, into OpenAI's form.

It works on parsed JSON and does no input or output. The calls of a stream are passed on with the response at its end,
which the SDK runs them from; text is passed on as it arrives.
"""

import uuid
from collections.abc import Mapping
from typing import Any, get_args

from attrs import define, field
from openai.types.responses import ResponseOutputItem

from gateway_plugins.upstreams.finish_reasons import openai_reason
from gateway_plugins.upstreams.framing import DialectError
from gateway_plugins.upstreams.structured_text import is_json
from gateway_plugins.upstreams.text_pieces import TextPieces
from gateway_plugins.upstreams.tool_calls import (
    arguments_text,
    check_arguments,
    check_count,
    count,
    objects,
    plain_text,
    unique_id,
    whole_arguments,
)

_TERMINAL = frozenset(
    f"response.{word}" for word in ("completed", "done", "incomplete", "failed", "cancelled", "canceled")
)
_UNTYPED = "response"
"""Stands for the type of a response that is not in an event."""
_CALLS = frozenset({"function_call", "tool_call", "function"})
_CALL_EXTRAS = ("caller", "namespace")
"""Fields of calls that only OpenAI's own servers send."""
_TEXT = frozenset({"output_text", "text", "input_text"})
_FAILED = frozenset({"failed", "cancelled", "canceled", "error"})
_EARLY = frozenset({"in_progress", "queued"})
_REASONING = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})
_OWN = frozenset({"message", "reasoning"} | _CALLS)
"""Types of the items that are passed on with the response only."""
_KNOWN = frozenset(
    name
    for kind in get_args(get_args(ResponseOutputItem)[0])
    for name in get_args(kind.model_fields["type"].annotation)
)
"""Types of items that the client knows. It would read others as messages without content."""
_DEFAULTS: dict[str, Any] = {
    "object": "response",
    "created_at": 0,
    "model": "",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
_USAGE_NAMES = (
    ("input_tokens", ("input_tokens", "prompt_tokens", "prompt_eval_count")),
    ("output_tokens", ("output_tokens", "completion_tokens", "eval_count")),
)
_DETAILS = (
    ("input_tokens_details", "prompt_tokens_details", "cached_tokens"),
    ("output_tokens_details", "completion_tokens_details", "reasoning_tokens"),
)
_PREFIXES = {"message": "msg_", "function_call": "fc_", "reasoning": "rs_"}


def item_ids(items: Any) -> set[str]:
    """The ids of the items and the calls of a conversation."""
    return {str(item[key]) for item in objects(items) for key in ("id", "call_id") if item.get(key)}


@define
class ResponseAnswer:
    """The state of one answer.

    Args:
        known_ids: The ids of the items and calls in the conversation. Items of this answer never have one of them.
    """

    known_ids: set[str] = field(factory=set)
    response: dict[str, Any] | None = None
    """The response in OpenAI's form, when it has arrived."""
    finish_reason: str | None = None
    _items: list[dict[str, Any]] = field(factory=list)
    """The items so far."""
    _pending: dict[int, dict[str, Any]] = field(factory=dict)
    """Those of them whose end has not arrived, by their `id()`."""
    _calls: dict[Any, dict[str, Any]] = field(factory=dict)
    """The last call that began at each index, for servers that omit the ids of items."""
    _named: dict[str, list[dict[str, Any]]] = field(factory=dict)
    """The calls that began with each id, up to the last one that is pending."""
    _arguments: dict[int, TextPieces] = field(factory=dict)
    """The arguments of the pending calls, by their `id()`."""
    _message: dict[str, Any] | None = None
    """The message that the text belongs to."""
    _text: TextPieces = field(factory=TextPieces)
    """Its text."""
    _place: Any = None
    """Its index, if the server gave one."""
    _sent: list[str] = field(factory=list)
    """The text that was passed on."""
    _reasoned: bool = False
    """Whether reasoning was passed on."""
    _messages_done: int = 0
    """Number of messages whose end was passed on."""
    _number: int = 0

    def event(self, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Normalize an event; the events that it stands for.

        Raises:
            DialectError: The server reports a failure, the event is invalid, or there are too many items.
        """
        check_count(self._items)
        kind = _kind(value)
        if kind in ("error", "response.error") or (value.get("error") and not kind.startswith("response")):
            raise _reported(value.get("error") or value)
        if self.response is not None:
            return []  # some servers send the end twice
        if kind in _TERMINAL or kind == _UNTYPED:
            return self._end(value, kind)
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            return self._write(kind, _joined(value.get("delta")), value)
        if kind in ("response.output_text.done", "response.refusal.done", "response.content_part.done"):
            return self._text_done(value)
        if kind.startswith("response.reasoning") and kind.endswith(".delta"):
            return self._reason(kind, _joined(value.get("delta")), value)
        if kind.startswith("response.function_call_arguments."):
            self._add_arguments(value)
            return []
        item = value.get("item")
        if kind == "response.output_item.added" and isinstance(item, Mapping):
            return self._added(item, value)
        if kind == "response.output_item.done" and isinstance(item, Mapping):
            return self._done(item, value)
        if kind.startswith("response."):
            return [self._at(value)] if kind != "response.content_part.added" else []
        if any(value.get(key) for key in ("delta", "text", "content", "choices", "message")):
            raise DialectError("the upstream sent an invalid event")
        return []

    def end(self) -> list[dict[str, Any]]:
        """Return the events at the end of the stream.

        Raises:
            DialectError: The answer was interrupted.
        """
        if self.response is not None:
            return []
        if self._pending or not self._items:
            raise DialectError("the upstream's stream was interrupted")
        return self._end({}, "response.completed")

    def _end(self, value: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
        given = value.get("response")
        given = given if isinstance(given, Mapping) else {key: each for key, each in value.items() if key != "type"}
        status = str(given.get("status") or kind.removeprefix("response."))
        details = given.get("incomplete_details")
        if status in _FAILED or kind.removeprefix("response.") in _FAILED or given.get("error"):
            raise _reported(given.get("error") or value.get("error") or {"message": f"status {status}"})
        if kind == _UNTYPED and status in _EARLY:
            raise DialectError("the upstream returned a response that is not complete")
        self.finish_reason = "stop"
        if status == "incomplete" or kind == "response.incomplete":
            reason = openai_reason(details.get("reason")) if isinstance(details, Mapping) else None
            self.finish_reason = reason if reason in ("length", "content_filter") else "length"
        output = self._output(given)
        missing = [*self._missing_reasoning(output), *self._missing_text(output)]
        # The citations of a message are at its end.
        for message in [item for item in output if item["type"] == "message"][self._messages_done :]:
            missing.append(self._at({"type": "response.output_item.done", "output_index": 0, "item": message}))
        known = {key: each for key, each in given.items() if each is not None}
        self.response = {
            **_DEFAULTS,
            **known,
            "id": plain_text(given.get("id")) or _new_id("resp_"),
            # The client gets the finish reason; the SDK treats an incomplete response as a failure.
            "status": "completed",
            "incomplete_details": None,
            "output": output,
            "usage": _usage(given.get("usage")),
        }
        return [*missing, self._at({"type": "response.completed", "response": self.response})]

    def _output(self, response: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The items in OpenAI's form, of the response or, if some are missing there, as they were sent."""
        self._leave_message()
        for item in self._pending.values():
            self._join_arguments(item)
        given = objects(response.get("output"))
        items: list[Mapping[str, Any]] = given if len(given) >= len(self._items) else [*self._items]
        output = [normal for item in items for normal in _normal_items(item) if normal.get("type") in _KNOWN]
        # Some servers send the text next to the items, or in their place.
        elsewhere = (
            response.get(key) for key in ("output_text", "output", "text") if isinstance(response.get(key), str)
        )
        text = "".join(self._sent) or next(elsewhere, "")
        if text and not _text_of(output):
            output.append(_normal_items({"type": "message", "content": text})[0])
        if self.finish_reason == "length":
            output = [item for item in output if item["type"] != "function_call" or is_json(item["arguments"], dict)]
        for item in output:
            if item["type"] == "function_call":
                item["call_id"] = self._unique(item["call_id"], "call_")
            if item["type"] in _PREFIXES or item.get("id"):
                item["id"] = self._unique(plain_text(item.get("id")), _PREFIXES.get(item["type"], "item_"))
        return output

    def _unique(self, given: str, prefix: str) -> str:
        found = unique_id(given, prefix, self.known_ids)
        self.known_ids.add(found)
        return found

    def _missing_text(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The text of the response that was not sent before."""
        text, sent = _text_of(output), "".join(self._sent)
        return self._write("response.output_text.delta", text[len(sent) :], {}) if text.startswith(sent) else []

    def _missing_reasoning(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._reasoned or self._sent:
            return []
        items = [item for item in output if item["type"] == "reasoning"]
        text = "".join(part["text"] for item in items for part in (item["summary"] or item.get("content") or ()))
        return self._reason("response.reasoning_text.delta", text, {})

    def _write(self, kind: str, text: str, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not text:
            return []
        place, item_id = value.get("output_index"), plain_text(value.get("item_id"))
        moved = None not in (place, self._place) and place != self._place
        if self._message is not None and moved and item_id not in ("", self._message["id"]):
            # Another message, whose start was omitted. Neither the index nor the id alone distinguishes it.
            self._pending.pop(id(self._message), None)
            self._leave_message()
        started = self._start({"id": item_id}, place) if self._message is None else []
        message = self._message
        assert message is not None
        self._text.add(text)
        self._pending[id(message)] = message
        self._sent.append(text)
        defaults = {"content_index": 0, "output_index": 0, "logprobs": [], **_known(value)}
        return [*started, self._at({**defaults, "type": kind, "item_id": message["id"], "delta": text})]

    def _reason(self, kind: str, text: str, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not text:
            return []
        self._reasoned = True
        kind = kind if kind in _REASONING else "response.reasoning_text.delta"
        place = {"content_index": 0, "summary_index": 0, "output_index": 0, "item_id": "rs", **_known(value)}
        return [self._at({**place, "type": kind, "delta": text})]

    def _text_done(self, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        part = value.get("part")
        part = part if isinstance(part, Mapping) else value
        refusal = bool(part.get("refusal"))
        text = _joined(part.get("refusal") if refusal else part.get("text"))
        if "reasoning" in _type(part):
            return []
        events = self._rest(text, "response.refusal.delta" if refusal else "response.output_text.delta")
        self._pending.pop(id(self._message), None)
        return events

    def _rest(self, text: str, kind: str) -> list[dict[str, Any]]:
        """The rest of a part of the message whose deltas were omitted, or lost."""
        return self._write(kind, self._text.missing(text), {})

    def _added(self, item: Mapping[str, Any], value: Mapping[str, Any]) -> list[dict[str, Any]]:
        if _type(item) == "message":
            return self._start(item, value.get("output_index"))
        if _type(item) not in _OWN:
            return [self._at(value)]
        begun = dict(item)
        self._items.append(begun)
        if _type(item) in _CALLS:
            self._pending[id(begun)] = begun
            self._named.setdefault(plain_text(item.get("id")), []).append(begun)
            self._calls[_hashable(value.get("output_index"))] = begun
        return []

    def _start(self, item: Mapping[str, Any], place: Any = None) -> list[dict[str, Any]]:
        self._leave_message()
        self._place = place
        self._message = {"type": "message", "role": "assistant", "status": "in_progress", "content": ""}
        self._message["id"] = plain_text(item.get("id")) or _new_id("msg_")
        self._items.append(self._message)
        shown = {**self._message, "content": []}
        return [self._at({"type": "response.output_item.added", "output_index": 0, "item": shown})]

    def _done(self, item: Mapping[str, Any], value: Mapping[str, Any]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        if _type(item) == "message":
            events = self._start(item, value.get("output_index")) if self._message is None else []
            events += self._rest(_text_of(_normal_items(item)), "response.output_text.delta")
            begun = self._message
            self._leave_message()
            self._messages_done += 1
            events.append(self._at({**value, "item": _normal_items(item)[0]}))
        elif _type(item) in _OWN:
            same = [each for each in self._pending.values() if _type(each) == _type(item)]
            placed = self._calls.get(_hashable(value.get("output_index")))
            named = [each for each in same if item.get("id") and each.get("id") == item["id"]]
            begun = next(iter([*named, *(each for each in same if each is placed), *same]), None)
        else:
            begun, events = None, [self._at(value)]
        if begun is None:
            self._items.append(dict(item))
        else:
            self._join_arguments(begun)
            begun.update({key: each for key, each in item.items() if each not in (None, "")})
            self._pending.pop(id(begun), None)
        return events

    def _leave_message(self) -> None:
        if self._message is not None:
            self._message["content"] = str(self._text)
        self._message, self._text = None, TextPieces()

    def _join_arguments(self, call: dict[str, Any]) -> None:
        if (arguments := self._arguments.pop(id(call), None)) is not None:
            call["arguments"] = str(arguments)

    def _add_arguments(self, value: Mapping[str, Any]) -> None:
        call = self._pending_call(plain_text(value.get("item_id")), _hashable(value.get("output_index")))
        if call is None:
            return
        if value.get("arguments") is not None:
            self._arguments.pop(id(call), None)
            call["arguments"] = value["arguments"]
            del self._pending[id(call)]
            return
        if (arguments := self._arguments.get(id(call))) is None:
            arguments = self._arguments[id(call)] = TextPieces(arguments_text(call))
        arguments.add(_joined(value.get("delta")))
        check_arguments(arguments)

    def _pending_call(self, item_id: str, index: int | str | None) -> dict[str, Any] | None:
        named = self._named.get(item_id) if item_id else None
        if named is not None:
            while len(named) > 1 and id(named[-1]) not in self._pending:
                named.pop()
            return self._pending.get(id(named[-1]))
        if (placed := self._calls.get(index)) is not None:
            return self._pending.get(id(placed))
        return next((each for each in reversed(self._pending.values()) if _type(each) in _CALLS), None)

    def _at(self, value: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {"sequence_number": self._number, **_known(value)}


def _type(item: Mapping[str, Any]) -> str:
    kind = item.get("type")
    return kind if isinstance(kind, str) else ""


def _kind(value: Mapping[str, Any]) -> str:
    kind = value["type"] if isinstance(value.get("type"), str) else ""
    inner = value.get("response")
    if not kind and isinstance(inner, Mapping):
        return _UNTYPED if inner.get("status") not in _EARLY else "response.in_progress"
    return _UNTYPED if not kind and ("output" in value or value.get("object") == "response") else kind


def _reported(error: Any) -> DialectError:
    return DialectError(
        "the upstream reported an error", error if isinstance(error, Mapping) else {"message": str(error)}
    )


def _known(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if each is not None}


def _new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def _hashable(index: Any) -> int | str | None:
    return index if isinstance(index, int | str) else None


def _joined(value: Any) -> str:
    """The text of a text, a part, or a list of parts."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("text", "refusal", "content", "value") if value.get(key)), "")
    if isinstance(value, list):
        return "".join(_joined(each) for each in value)
    return value if isinstance(value, str) else ""


def _text_of(output: list[dict[str, Any]]) -> str:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text") or part.get("refusal") or "" for part in parts)


def _normal_items(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An item in OpenAI's form; several if a message contains calls."""
    kind = _type(item) or ("message" if "content" in item else "")
    if kind in _CALLS:
        function = item.get("function")
        function = function if isinstance(function, Mapping) else item
        return [
            {
                **{name: item[name] for name in _CALL_EXTRAS if item.get(name)},
                "type": "function_call",
                "id": item.get("id"),
                "call_id": plain_text(item.get("call_id")) or plain_text(item.get("id")),
                "name": plain_text(function.get("name")),
                "arguments": whole_arguments(arguments_text(function)),
                "status": "completed",
            }
        ]
    if kind == "reasoning":
        summary, text = _parts(item.get("summary"), "summary_text"), _parts(item.get("content"), "reasoning_text")
        return [{**_known(item), "type": kind, "summary": summary, "content": text or None}]
    if kind != "message":
        return [dict(item)]
    parts = item.get("content")
    content: list[dict[str, Any]] = []
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, Mapping) and part.get("refusal"):
            content.append({"type": "refusal", "refusal": _joined(part["refusal"])})
        elif (words := _joined(part)) or (isinstance(part, Mapping) and _type(part) in _TEXT):
            annotations = part.get("annotations") if isinstance(part, Mapping) else None
            content.append({"type": "output_text", "text": words, "annotations": objects(annotations)})
    message = {"type": "message", "id": item.get("id"), "role": "assistant", "status": "completed", "content": content}
    calls = [each for call in objects(item.get("tool_calls")) for each in _normal_items({"type": "function", **call})]
    return [message, *calls] if content or not calls else calls


def _parts(value: Any, kind: str) -> list[dict[str, Any]]:
    parts = value if isinstance(value, list) else [value]
    return [{"type": kind, "text": text} for part in parts if (text := _joined(part))]


def _usage(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, Mapping) or not value:
        return None
    usage: dict[str, Any] = {
        name: next((count(value[each]) for each in names if value.get(each) is not None), 0)
        for name, names in _USAGE_NAMES
    }
    usage["total_tokens"] = count(value.get("total_tokens")) or usage["input_tokens"] + usage["output_tokens"]
    for name, other, detail in _DETAILS:
        given = value.get(name) or value.get(other)
        details = {key: count(each) for key, each in given.items()} if isinstance(given, Mapping) else {}
        usage[name] = {detail: 0, **details}
    return usage
