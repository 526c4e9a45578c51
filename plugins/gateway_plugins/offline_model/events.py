"""Output items, and the stream of Responses events in which the SDK expects them."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

from agents.items import TResponseStreamEvent
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types import responses
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel

Item = ResponseOutputMessage | ResponseFunctionToolCall

_WORD = re.compile(r"\s*\S{1,80}\s*|\s+")
# There is no tokenizer and nothing to pay for.
_NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
    "output_tokens": 0,
    "output_tokens_details": OutputTokensDetails(reasoning_tokens=0),
    "total_tokens": 0,
}


def _construct(cls: type[BaseModel], /, **fields: Any) -> Any:
    """Create an instance without validation: building the validators of all events takes a tenth of a second."""
    # `model_construct` of the client's models converts the fields, which builds validators of their unions.
    construct: Any = BaseModel.model_construct
    return construct.__func__(cls, **fields)


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
    for number, (event, kind, fields) in enumerate(_events(item)):
        if event is responses.ResponseTextDeltaEvent:
            await asyncio.sleep(word_delay)
        yield _construct(event, type=f"response.{kind}", sequence_number=number, **fields)


def _events(item: Item) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """The class, the type and the fields of each event."""
    place = {"output_index": 0}
    within: dict[str, Any] = {**place, "item_id": item.id}
    yield responses.ResponseCreatedEvent, "created", {"response": _response([], "in_progress")}
    added = responses.ResponseOutputItemAddedEvent
    if isinstance(item, ResponseFunctionToolCall):
        started: Item = item.model_copy(update={"arguments": "", "status": "in_progress"})
        yield added, "output_item.added", {**place, "item": started}
        kind, given = "function_call_arguments", {"arguments": item.arguments, "name": item.name}
        yield responses.ResponseFunctionCallArgumentsDeltaEvent, f"{kind}.delta", {**within, "delta": item.arguments}
        yield responses.ResponseFunctionCallArgumentsDoneEvent, f"{kind}.done", {**within, **given}
    else:
        part: Any = item.content[0]
        within["content_index"] = 0
        started = item.model_copy(update={"content": [], "status": "in_progress"})
        yield added, "output_item.added", {**place, "item": started}
        empty = part.model_copy(update={"text": ""})
        yield responses.ResponseContentPartAddedEvent, "content_part.added", {**within, "part": empty}
        for word in _WORD.findall(part.text):
            yield responses.ResponseTextDeltaEvent, "output_text.delta", {**within, "delta": word, "logprobs": []}
        yield responses.ResponseTextDoneEvent, "output_text.done", {**within, "text": part.text, "logprobs": []}
        yield responses.ResponseContentPartDoneEvent, "content_part.done", {**within, "part": part}
    yield responses.ResponseOutputItemDoneEvent, "output_item.done", {**place, "item": item}
    yield responses.ResponseCompletedEvent, "completed", {"response": _response([item], "completed")}


def _response(output: list[Item], status: str) -> Any:
    usage = _construct(responses.ResponseUsage, **_NO_TOKENS)
    fixed = {"id": FAKE_RESPONSES_ID, "object": "response", "created_at": 0, "model": "offline", "usage": usage}
    given = {"output": output, "status": status, "parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return _construct(responses.Response, **fixed, **given)
