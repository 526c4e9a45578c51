"""The queue between Hypercorn's connection and the application."""

import asyncio

from gateway_core.server.connection_memory import EventQueue


async def test_events_keep_their_order_and_wait_for_room():
    queue = EventQueue(2)
    putting = asyncio.create_task(put_all(queue, range(5)))
    await asyncio.sleep(0)
    assert not putting.done()
    assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    await putting


async def test_a_cancelled_reader_takes_no_event():
    queue = EventQueue(2)
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    reader.cancel()
    await queue.put("event")
    assert await queue.get() == "event"
    assert reader.cancelled() or await asyncio.wait([reader])


async def put_all(queue, events):
    for event in events:
        await queue.put(event)
