"""Carries the events of one run, from whatever produces them to the one reader, in order.

Not a general queue: one event loop, one reader, and writers that never wait; whoever reads what is written from
elsewhere may wait for `room`. The reader takes all that is there at once, so that a burst of tokens costs one wake-up
and one write to the client, and a lone token none of the wait.
"""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

MANY_ITEMS = 256


class EventChannel(Generic[T]):
    """An unbounded, ordered hand-over between tasks of one event loop."""

    __slots__ = ("_items", "_taken", "_waiter")

    def __init__(self) -> None:
        self._items: list[T] = []
        self._waiter: asyncio.Future[None] | None = None
        self._taken = asyncio.Event()

    def put(self, item: T) -> None:
        """Add an item and wake the reader."""
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def room(self) -> None:
        """Wait until the reader has taken what is there, if that is much."""
        while len(self._items) >= MANY_ITEMS:
            self._taken.clear()
            await self._taken.wait()

    async def take(self, timeout: float | None = None) -> list[T]:
        """All items that are there, waiting for the first one.

        Args:
            timeout: Seconds to wait. When they pass without an item, the list is empty.
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
        self._taken.set()
        return items


def _finish(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
