"""Output items, and the stream of Responses events in which the SDK expects them."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from uuid import uuid4

from agents.items import TResponseStreamEvent
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from pydantic import Field, TypeAdapter

Item = ResponseOutputMessage | ResponseFunctionToolCall

_EVENT: TypeAdapter[Any] = TypeAdapter(Annotated[TResponseStreamEvent, Field(discriminator="type")])
_WORD = re.compile(r"\s*\S{1,80}\s*|\s+")
# There is no tokenizer and nothing to pay for.
_NO_TOKENS = {"input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "input_tokens": 0}
_NO_TOKENS |= {"output_tokens_details": {"reasoning_tokens": 0}, "output_tokens": 0, "total_tokens": 0}


def message(text: str) -> ResponseOutputMessage:
    """A completed message."""
    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    # The SDK's placeholder for a provider without ids; the SDK never sends it to OpenAI.
    return ResponseOutputMessage(
        id=FAKE_RESPONSES_ID, type="message", role="assistant", status="completed", content=[part]
    )


def function_call(name: str, arguments: str) -> ResponseFunctionToolCall:
    """A completed call of a tool or handoff. `arguments` is JSON."""
    call = ResponseFunctionToolCall(
        type="function_call", name=name, arguments=arguments, call_id=f"call_{uuid4().hex}", status="completed"
    )
    call.id = FAKE_RESPONSES_ID
    return call


async def stream(item: Item, word_delay: float) -> AsyncIterator[TResponseStreamEvent]:
    """The events of a response with one output item, text word by word.

    Args:
        item: A completed item.
        word_delay: Seconds before each word.
    """
    for number, (kind, fields) in enumerate(_events(item)):
        if kind == "response.output_text.delta":
            await asyncio.sleep(word_delay)
        yield _EVENT.validate_python({"type": kind, "sequence_number": number, **fields})


def _events(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    """The type and fields of each event."""
    place = {"output_index": 0}
    within: dict[str, Any] = {**place, "item_id": item.id}
    yield "response.created", {"response": _response([], "in_progress")}
    if isinstance(item, ResponseFunctionToolCall):
        started: Item = item.model_copy(update={"arguments": "", "status": "in_progress"})
        yield "response.output_item.added", {**place, "item": started}
        yield "response.function_call_arguments.delta", {**within, "delta": item.arguments}
        yield "response.function_call_arguments.done", {**within, "arguments": item.arguments}
    else:
        part: Any = item.content[0]
        within["content_index"] = 0
        started = item.model_copy(update={"content": [], "status": "in_progress"})
        yield "response.output_item.added", {**place, "item": started}
        yield "response.content_part.added", {**within, "part": part.model_copy(update={"text": ""})}
        for word in _WORD.findall(part.text):
            yield "response.output_text.delta", {**within, "delta": word, "logprobs": []}
        yield "response.output_text.done", {**within, "text": part.text, "logprobs": []}
        yield "response.content_part.done", {**within, "part": part}
    yield "response.output_item.done", {**place, "item": item}
    yield "response.completed", {"response": _response([item], "completed")}


def _response(output: list[Item], status: str) -> dict[str, Any]:
    fixed = {"id": FAKE_RESPONSES_ID, "object": "response", "created_at": 0, "model": "offline", "usage": _NO_TOKENS}
    given = {"output": output, "status": status, "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {**fixed, **given}
