"""The events of a streamed answer: in the order of the Responses API, and without blocking the event loop."""

import asyncio
from typing import Any

from gateway_plugins.offline_model.events import Item, function_call, message, stream
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent


async def events_of(item: Item, word_delay: float = 0) -> list[Any]:
    return [event async for event in stream(item, word_delay)]


async def test_a_message_is_streamed_in_the_order_of_the_responses_api() -> None:
    item = message("one two\n\nthree")
    events = await events_of(item)
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert [event.type for event in events] == [
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(deltas) == events[6].text == "one two\n\nthree"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert events[-1].response.output == [item]
    assert events[-1].response.usage is not None
    assert events[-1].response.usage.total_tokens == 0


async def test_a_call_is_streamed_in_the_order_of_the_responses_api() -> None:
    item = function_call("get_weather", '{"city": "Rome"}')
    events = await events_of(item)
    assert [event.type for event in events] == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[1].item.arguments == ""
    assert events[2].delta == events[3].arguments == item.arguments
    assert events[-1].response.output == [item]


async def test_a_stream_lets_others_run() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await events_of(message("word " * 200))
    counting.cancel()
    assert turns >= 200


async def test_words_are_delayed() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await events_of(message("one two three four five"), word_delay=0.005)
    assert loop.time() - began >= 4 * 0.005
