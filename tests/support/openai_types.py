"""Validates JSON against the types of the official `openai` package, strictly: no conversions, and no unknown fields
except those that the reference documents as extensions of OpenAI's objects.
"""

import json
from collections.abc import Iterator
from typing import Any

from openai.types import ErrorObject
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

EXTENSIONS = {
    "Model": {"name", "description", "info"},
    "ChatCompletionMessage": {"reasoning", "reasoning_content", "images"},
    "ChoiceDelta": {"reasoning", "reasoning_content", "images", "annotations"},
    "Response": {"frequency_penalty", "presence_penalty", "store"},
    "ResponseFunctionCallArgumentsDoneEvent": {"name"},  # required by earlier versions of the types
}
"""Documented extensions, by type."""


def check(kind: Any, value: Any) -> Any:
    """Return a value as an object of the official types.

    Args:
        kind: A type, or a union of types.
        value: The value, as parsed JSON.

    Raises:
        ValidationError: A field is missing or has another type.
        AssertionError: A field is unknown.
    """
    parsed = TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    unknown = [f"{where}: {names}" for where, names in _unknown(parsed, type(parsed).__name__)]
    assert not unknown, unknown
    return parsed


def _unknown(value: Any, where: str) -> Iterator[tuple[str, set[str]]]:
    if isinstance(value, BaseModel):
        names = {*(value.model_extra or {})} - EXTENSIONS.get(type(value).__name__, set())
        if names:
            yield where, names
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from _unknown(each, f"{where}[]")


def check_chat(value: dict[str, Any]) -> ChatCompletion:
    """Check a chat completion."""
    return check(ChatCompletion, value)


def check_chat_stream(text: str) -> list[Any]:
    """Check the chunks of a streamed chat completion; one that failed ends with an error."""
    blocks = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    if blocks[-1] != "[DONE]":
        check_error(json.loads(blocks.pop()))
        blocks.append("[DONE]")
    values = [json.loads(block) for block in blocks[:-1]]
    # Open WebUI's own events have this single field.
    return [check(ChatCompletionChunk, value) for value in values if set(value) != {"event"}]


def check_response(value: dict[str, Any]) -> Response:
    """Check a response."""
    return check(Response, value)


def check_response_stream(text: str) -> list[Any]:
    """Check the events of a streamed response, which are numbered without gaps."""
    events = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if not lines:
            continue
        name, data = lines
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(check(ResponseStreamEvent, event))
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return events


def check_error(value: dict[str, Any]) -> ErrorObject:
    """Check an error."""
    assert set(value) == {"error"}
    return check(ErrorObject, value["error"])
