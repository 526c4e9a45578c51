"""Tells an answer as the stream of Responses events in which the SDK expects it, word by word.

This module must not decide what is answered.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from agents.items import TResponseOutputItem, TResponseStreamEvent
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

MODEL_NAME = "offline"
_WORD = re.compile(r"\s*\S{1,80}\s*|\s+")
_WORDS_A_TURN = 16
"""Of the event loop, where words are not delayed."""


def message(text: str) -> ResponseOutputMessage:
    """A finished message."""
    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    # The SDK's word for "the provider gave it no id": it keeps such ids away from OpenAI, where they would not exist.
    return ResponseOutputMessage(
        id=FAKE_RESPONSES_ID, type="message", role="assistant", status="completed", content=[part]
    )


def function_call(name: str, arguments: str, call_id: str) -> ResponseFunctionToolCall:
    """A finished call of a tool or handoff. `arguments` is JSON."""
    return ResponseFunctionToolCall(
        id=FAKE_RESPONSES_ID,
        type="function_call",
        status="completed",
        name=name,
        arguments=arguments,
        call_id=call_id,
    )


async def told(output: Sequence[TResponseOutputItem], word_delay: float) -> AsyncIterator[TResponseStreamEvent]:
    """The events of an answer.

    Args:
        output: Messages and function calls.
        word_delay: Seconds between two words.
    """
    sequence = 0
    started = _response([], "in_progress")
    yield ResponseCreatedEvent(type="response.created", response=started, sequence_number=sequence)
    words = 0
    for index, item in enumerate(output):
        for event in _item_events(item, index):
            if isinstance(event, ResponseTextDeltaEvent):
                words += 1
                if word_delay > 0 and words > 1:
                    await asyncio.sleep(word_delay)
                elif words % _WORDS_A_TURN == 0:
                    await asyncio.sleep(0)
            sequence += 1
            event.sequence_number = sequence
            yield event
    completed = _response(output, "completed")
    yield ResponseCompletedEvent(type="response.completed", response=completed, sequence_number=sequence + 1)


def _item_events(item: Any, index: int) -> Iterable[Any]:
    place: dict[str, Any] = {"output_index": index, "sequence_number": 0}
    within = {**place, "item_id": item.id}
    if isinstance(item, ResponseFunctionToolCall):
        begun: Any = item.model_copy(update={"arguments": "", "status": "in_progress"})
        middle = _call_events(item, within)
    else:
        begun = item.model_copy(update={"content": [], "status": "in_progress"})
        middle = _text_events(item.content[0], {**within, "content_index": 0})
    yield ResponseOutputItemAddedEvent(type="response.output_item.added", item=begun, **place)
    yield from middle
    yield ResponseOutputItemDoneEvent(type="response.output_item.done", item=item, **place)


def _call_events(item: ResponseFunctionToolCall, within: dict[str, Any]) -> Iterable[Any]:
    yield ResponseFunctionCallArgumentsDeltaEvent(
        type="response.function_call_arguments.delta", delta=item.arguments, **within
    )
    yield ResponseFunctionCallArgumentsDoneEvent(
        type="response.function_call_arguments.done", arguments=item.arguments, **within
    )


def _text_events(part: ResponseOutputText, within: dict[str, Any]) -> Iterable[Any]:
    empty = part.model_copy(update={"text": ""})
    yield ResponseContentPartAddedEvent(type="response.content_part.added", part=empty, **within)
    for word in _WORD.findall(part.text):
        yield ResponseTextDeltaEvent(type="response.output_text.delta", delta=word, logprobs=[], **within)
    yield ResponseTextDoneEvent(type="response.output_text.done", text=part.text, logprobs=[], **within)
    yield ResponseContentPartDoneEvent(type="response.content_part.done", part=part, **within)


def _response(output: Sequence[TResponseOutputItem], status: Any) -> Response:
    # No tokens are counted, for there is no tokenizer here and nothing to pay for.
    usage = ResponseUsage(
        input_tokens=0,
        output_tokens=0,
        total_tokens=0,
        input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
    )
    return Response(
        id=FAKE_RESPONSES_ID,
        created_at=0,
        model=MODEL_NAME,
        object="response",
        output=list(output),
        parallel_tool_calls=False,
        status=status,
        tool_choice="auto",
        tools=[],
        usage=usage if status == "completed" else None,
    )
