"""The queue of runs and of Hypercorn's connections: an `asyncio.Queue` that is small while it is empty."""

import asyncio
import sys
from collections import deque

import pytest

from gateway_core.small_queue import SmallQueue


async def test_items_keep_their_order_and_wait_for_room():
    queue = SmallQueue(2)
    putting = asyncio.create_task(put_all(queue, range(5)))
    await asyncio.sleep(0)
    assert not putting.done()
    assert [await queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    await putting


async def test_each_waiting_reader_gets_one_item_in_the_order_of_arrival():
    queue = SmallQueue()
    readers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    for item in range(3):
        queue.put_nowait(item)
    assert await asyncio.gather(*readers) == [0, 1, 2]
    assert queue.empty()
    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()


async def test_a_cancelled_reader_takes_no_item():
    queue = SmallQueue(2)
    reader = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    reader.cancel()
    await queue.put("item")
    assert await queue.get() == "item"
    assert reader.cancelled() or await asyncio.wait([reader])


async def test_join_waits_for_the_last_item():
    queue = SmallQueue()
    queue.put_nowait("item")
    joined = asyncio.create_task(queue.join())
    await queue.get()
    assert not joined.done()
    queue.task_done()
    await joined


async def test_an_empty_queue_holds_no_deque():
    queue = SmallQueue()
    queue.put_nowait("item")
    await queue.get()
    parts = [*vars(queue).values(), *vars(queue._finished).values()]
    assert not any(isinstance(part, deque) for part in parts)
    assert sum(map(sys.getsizeof, parts)) < 500


async def put_all(queue, items):
    for item in items:
        await queue.put(item)
