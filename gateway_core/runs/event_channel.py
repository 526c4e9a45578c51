"""A channel that carries the events of one run, in order, from its writers to one reader.

It is not a general-purpose queue: it supports one event loop and one reader, and writers never block. A writer that
relays data from another source can apply backpressure with `room`. The reader takes all pending items at once: a burst
of tokens costs one wake-up and one write to the client, and a single token is not delayed.
"""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

HIGH_WATER_MARK = 256
"""Number of pending items from which `room` waits."""


class EventChannel(Generic[T]):
    """An unbounded, ordered channel between tasks of one event loop."""

    __slots__ = ("_items", "_taken", "_waiter")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiter: asyncio.Future[None] | None = None
        self._taken: asyncio.Event | None = None  # made when a source waits, which is rare

    def put(self, item: T) -> None:
        """Add an item and wake the reader."""
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def room(self) -> None:
        """Wait until fewer than `HIGH_WATER_MARK` items are pending."""
        while len(self._items) >= HIGH_WATER_MARK:
            self._taken = self._taken or asyncio.Event()
            self._taken.clear()
            await self._taken.wait()

    async def take(self, timeout: float | None = None) -> list[T]:
        """Wait for at least one item, and return all pending items.

        Args:
            timeout: Seconds to wait; if they elapse, the list is empty. `None` waits without a limit.
        """
        if not self._items:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = None if timeout is None else loop.call_later(timeout, _finish, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        items, self._items = self._items, []
        if self._taken is not None:
            self._taken.set()
        return items


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
