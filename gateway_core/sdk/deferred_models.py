"""Completes the pydantic models of the official client, which it otherwise builds at their first use, during a run.

Building takes a quarter of a second in total, during which the event loop would not serve any other request.
"""

import functools
from typing import Any, get_args

from openai.types import chat, responses
from pydantic import BaseModel


@functools.cache
def complete() -> None:
    """Complete the models that runs use. To be called in a thread, before requests are served. Idempotent."""
    models: list[Any] = [chat.ChatCompletion, chat.ChatCompletionChunk, responses.Response]
    models += [responses.ResponseFunctionToolCall, responses.ResponseOutputMessage, responses.ResponseReasoningItem]
    models += _members(responses.ResponseStreamEvent)
    seen: set[Any] = set()
    for model in models:
        _complete(model, seen)


def _complete(model: Any, seen: set[Any]) -> None:
    """Complete a model, and those of its fields."""
    if model in seen:
        return
    seen.add(model)
    for member in _members(model):
        if isinstance(member, type) and issubclass(member, BaseModel):
            member.model_rebuild()
            for field in member.model_fields.values():
                _complete(field.annotation, seen)


def _members(annotation: Any) -> list[Any]:
    """The types within an annotation, such as a union or a list."""
    inner = get_args(annotation)
    return [each for part in inner for each in _members(part)] if inner else [annotation]
