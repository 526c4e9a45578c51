"""Serializes run events as Chat Completions: a single object or a stream of chunks.

It returns bytes and performs no I/O. Text chunks are the most frequent, so they are assembled from prepared bytes.
Every chunk validates against the types of the official `openai` package.
"""

import secrets
import time
from collections.abc import Iterable
from typing import Any

import orjson

from gateway_core.http.activity_rendering import ImageDelta, Shown, SideEvent
from gateway_core.runs.run_events import Citation, ClientCallsAsked, Completed, ReasoningDelta, TextDelta
from gateway_core.types import ServedAgent, Usage

DONE = b"data: [DONE]\n\n"


def fingerprint(served: ServedAgent) -> str:
    """Returns the `system_fingerprint`, which changes when the agent's code changes."""
    return f"fp_{served.entry.digest[:12]}"


def completion_id() -> str:
    """Returns a new completion id. It begins with the time, so that ids are in the order of creation."""
    return f"chatcmpl-{time.time_ns():016x}{secrets.token_hex(8)}"


def usage_object(usage: Usage) -> dict[str, Any]:
    """Returns OpenAI's usage object, with the counts reported by the upstream."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def reasoning_fields(setting: str) -> tuple[str, ...]:
    """Returns the names of the fields that contain reasoning, for a value of `[clients] reasoning`.

    OpenAI's API has no such field; these two are common among other servers and their clients. The value `none` still
    returns a field, for activity that a rendering shows as reasoning.
    """
    return ("reasoning_content", "reasoning") if setting == "both" else (setting.replace("none", "reasoning_content"),)


def completion(
    model: str, fingerprint: str, events: Iterable[Shown], reasoning_to: Iterable[str], *, id: str | None = None
) -> dict[str, Any]:
    """Returns the complete response from all events of a run, with a new id by default."""
    text: list[str] = []
    reasoning: list[str] = []
    extras: dict[str, list[Any]] = {}
    usage, finish_reason = Usage(), "stop"
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
            case ReasoningDelta():
                reasoning.append(event.text)
            case Citation() | ImageDelta() | ClientCallsAsked():
                for name, values in _extra(event).items():
                    extras.setdefault(name, []).extend(values)
            case Completed():
                usage, finish_reason = event.usage, event.finish_reason
    content = "".join(text) or (None if "tool_calls" in extras else "")
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, **extras}
    for call in extras.get("tool_calls", ()):
        del call["index"]
    if reasoning:
        message |= dict.fromkeys(reasoning_to, "".join(reasoning))
    return {
        "id": id or completion_id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": usage_object(usage),
    }


class ChunkWriter:
    """Serializes the chunks of one streamed response.

    Args:
        model: The model id.
        fingerprint: The `system_fingerprint`.
        include_usage: Whether to add a last chunk with the usage.
        reasoning_to: Names of the fields that contain reasoning.
    """

    def __init__(self, model: str, fingerprint: str, *, include_usage: bool, reasoning_to: Iterable[str]) -> None:
        self._fields = {TextDelta: ("content",), ReasoningDelta: tuple(reasoning_to)}
        self._include_usage = include_usage
        self.id = completion_id()
        self._head: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        usage = b',"usage":null' if include_usage else b""
        self._before = b"data: " + orjson.dumps(self._head)[:-1] + usage + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]}\n\n'

    def start(self) -> bytes:
        """Returns the first chunk, which contains the role."""
        return self._before + b'{"role":"assistant","content":"","refusal":null}' + self._after

    def events(self, events: Iterable[Shown]) -> bytes:
        """Returns the chunks for some events; adjacent deltas of the same kind are merged."""
        parts: list[bytes] = []
        kind: tuple[str, ...] = ()
        texts: list[str] = []
        for event in events:
            if isinstance(event, SideEvent | Citation | ImageDelta | ClientCallsAsked):
                if texts:
                    parts.append(self._delta(kind, texts))
                    texts = []
                if isinstance(event, SideEvent):
                    parts.append(b"data: " + orjson.dumps(event.data) + b"\n\n")
                elif extra := _extra(event):
                    parts.append(self._before + orjson.dumps(extra) + self._after)
                continue
            new = self._fields.get(type(event))
            if new is None:
                continue
            if new is not kind and texts:
                parts.append(self._delta(kind, texts))
                texts = []
            kind = new
            texts.append(event.text)  # type: ignore[union-attr]
        if texts:
            parts.append(self._delta(kind, texts))
        return b"".join(parts)

    def end(self, completed: Completed) -> bytes:
        """Returns the last chunks: the finish reason, and the usage if requested."""
        reason = orjson.dumps(completed.finish_reason)
        last = self._before + b'{},"logprobs":null,"finish_reason":' + reason + b"}]}\n\n"
        if self._include_usage:
            usage = {**self._head, "choices": [], "usage": usage_object(completed.usage)}
            last += b"data: " + orjson.dumps(usage) + b"\n\n"
        return last + DONE

    def _delta(self, fields: tuple[str, ...], texts: list[str]) -> bytes:
        return self._before + orjson.dumps(dict.fromkeys(fields, "".join(texts))) + self._after


def _extra(event: Citation | ImageDelta | ClientCallsAsked) -> dict[str, list[Any]]:
    """Returns the fields of a message, next to its text, for an event; empty for citations of files."""
    if isinstance(event, ClientCallsAsked):
        return {
            "tool_calls": [
                {
                    "index": index,
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for index, call in enumerate(event.calls)
            ]
        }
    if isinstance(event, ImageDelta):
        return {"images": [{"type": "image_url", "image_url": {"url": event.url}}]}
    data = event.data
    if data.get("type") != "url_citation" or not data.get("url"):
        return {}
    url_citation = {
        "start_index": data.get("start_index") or 0,
        "end_index": data.get("end_index") or 0,
        "title": data.get("title") or data["url"],
        "url": data["url"],
    }
    return {"annotations": [{"type": "url_citation", "url_citation": url_citation}]}


def error_event(problem: dict[str, Any]) -> bytes:
    """Returns the event for an error within a stream. Official clients raise it; no `[DONE]` follows."""
    return b"data: " + orjson.dumps(problem) + b"\n\n"
