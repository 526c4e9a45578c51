"""Keeps the stream events of a response that runs in the background, so that clients can read them from any place."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Self

from gateway_core.http.streaming_endpoint import KEEP_ALIVE

MAX_BYTES = 32 * 1024 * 1024
"""Maximum size of the events of one response. The events of a larger one are discarded."""
_END = b"\n\n"


class EventLog:
    """The events of one response, in the format of server-sent events, numbered from 0."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._size = 0
        self._changed = asyncio.Event()
        self.ended = False
        """Whether the response has ended."""
        self.discarded = False
        """Whether the events were too large to be kept."""

    @classmethod
    def of(cls, stored: bytes) -> Self:
        """Returns the log of a response that has ended.

        Args:
            stored: The result of `compressed`.
        """
        log = cls()
        log.add(zlib.decompress(stored))
        log.end()
        return log

    def compressed(self) -> bytes:
        """Returns all events, to be stored."""
        return zlib.compress(b"".join(self._events))

    def add(self, chunk: bytes) -> None:
        """Adds whole events."""
        self._size += len(chunk)
        if self._size > MAX_BYTES:
            self._events.clear()
            self.discarded = True
        if not self.discarded:
            self._events += [event + _END for event in chunk.split(_END)[:-1]]
        self._notify()

    def end(self) -> None:
        """Ends the streams of all readers after the last event."""
        self.ended = True
        self._notify()

    async def read(self, start: int, keep_alive: float) -> AsyncIterator[bytes]:
        """Yields the events from the number `start` on, as they are added, in batches.

        If the events are discarded in the meantime, the stream ends early.

        Args:
            start: The number of the first event.
            keep_alive: Seconds without an event after which a comment is sent.
        """
        while not self.discarded:
            changed = self._changed
            if batch := self._events[start:]:
                start += len(batch)
                yield b"".join(batch)
            elif self.ended:
                return
            else:
                try:
                    await asyncio.wait_for(changed.wait(), keep_alive)
                except TimeoutError:
                    yield KEEP_ALIVE

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
