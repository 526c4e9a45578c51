"""RunEvents in the form of OpenAI's Chat Completions: one object, or a stream of chunks.

Pure: it writes bytes, and sends nothing. Text is what a client needs most often, so its chunk is put together from
prepared bytes; every chunk validates against the types of the official `openai` package.
"""

import time
import uuid
from collections.abc import Iterable
from typing import Any

import orjson

from gateway_core.http.activity_rendering import Shown, SideEvent
from gateway_core.types import Completed, ReasoningDelta, ServedAgent, TextDelta, Usage

DONE = b"data: [DONE]\n\n"


def fingerprint(served: ServedAgent) -> str:
    """`system_fingerprint`: changes when the agent does."""
    return f"fp_{served.entry.digest[:12]}"


def completion_id() -> str:
    """A new id for an answer."""
    return f"chatcmpl-{uuid.uuid4().hex}"


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object, as the upstream counted."""
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
    """The names of the fields that reasoning goes to, by `[clients] reasoning`.

    OpenAI's API has none; these are the two that other servers and their clients use. With `none`, activity that a
    rendering shows as reasoning still has its place.
    """
    return ("reasoning_content", "reasoning") if setting == "both" else (setting.replace("none", "reasoning_content"),)


def completion(model: str, fingerprint: str, events: Iterable[Shown], reasoning_to: Iterable[str]) -> bytes:
    """A whole answer from the whole run."""
    text: list[str] = []
    reasoning: list[str] = []
    usage, finish_reason = Usage(), "stop"
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
            case ReasoningDelta():
                reasoning.append(event.text)
            case Completed():
                usage, finish_reason = event.usage, event.finish_reason
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text), "refusal": None}
    if reasoning:
        message |= dict.fromkeys(reasoning_to, "".join(reasoning))
    return orjson.dumps(
        {
            "id": completion_id(),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
            "usage": usage_object(usage),
        }
    )


class ChunkWriter:
    """Writes the chunks of one streamed answer.

    Args:
        model: The model's name, as the client may use it again.
        fingerprint: Changes when the agent does.
        include_usage: Whether the client asked for a last chunk with the usage.
        reasoning_to: The names of the fields that reasoning goes to.
    """

    def __init__(self, model: str, fingerprint: str, *, include_usage: bool, reasoning_to: Iterable[str]) -> None:
        self._fields = {TextDelta: ("content",), ReasoningDelta: tuple(reasoning_to)}
        self._include_usage = include_usage
        self._head: dict[str, Any] = {
            "id": completion_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        usage = b',"usage":null' if include_usage else b""
        self._before = b"data: " + orjson.dumps(self._head)[:-1] + usage + b',"choices":[{"index":0,"delta":'
        self._after = b',"logprobs":null,"finish_reason":null}]}\n\n'

    def start(self) -> bytes:
        """The first chunk: who speaks."""
        return self._before + b'{"role":"assistant","content":"","refusal":null}' + self._after

    def events(self, events: Iterable[Shown]) -> bytes:
        """Chunks for events; pieces of text that came together go out together."""
        parts: list[bytes] = []
        kind: tuple[str, ...] = ()
        texts: list[str] = []
        for event in events:
            if isinstance(event, SideEvent):
                if texts:
                    parts.append(self._delta(kind, texts))
                    texts = []
                parts.append(b"data: " + orjson.dumps(event.data) + b"\n\n")
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
        """The last chunks: why it ended, and the usage where it was asked for."""
        reason = orjson.dumps(completed.finish_reason)
        last = self._before + b'{},"logprobs":null,"finish_reason":' + reason + b"}]}\n\n"
        if self._include_usage:
            usage = {**self._head, "choices": [], "usage": usage_object(completed.usage)}
            last += b"data: " + orjson.dumps(usage) + b"\n\n"
        return last + DONE

    def _delta(self, fields: tuple[str, ...], texts: list[str]) -> bytes:
        return self._before + orjson.dumps(dict.fromkeys(fields, "".join(texts))) + self._after


def error_event(problem: dict[str, Any]) -> bytes:
    """An error after the stream began: official clients raise it, and no `[DONE]` follows."""
    return b"data: " + orjson.dumps(problem) + b"\n\n"
