"""A queue that is small while it is empty, as it is for thousands of runs and connections whose models are silent."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


class SmallQueue(asyncio.Queue[_T]):
    """An `asyncio.Queue` with the same methods.

    Four empty instances of `deque`, for the items and for the tasks that wait, take 3 KiB of each `asyncio.Queue`.
    """

    _queue: Sequence[_T]

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        own: Any = self
        own._getters = _Waiting()
        own._putters = _Waiting()
        own._finished._waiters = _Waiting()

    def _init(self, maxsize: int) -> None:
        self._queue = ()

    def _put(self, item: _T) -> None:
        if not isinstance(self._queue, deque):
            self._queue = deque()
        self._queue.append(item)

    def _get(self) -> _T:
        assert isinstance(self._queue, deque)
        item: _T = self._queue.popleft()
        if not self._queue:
            self._queue = ()
        return item


class _Waiting(list["asyncio.Future[Any]"]):
    """The few tasks that wait for one queue."""

    __slots__ = ()

    def popleft(self) -> "asyncio.Future[Any]":
        return self.pop(0)
