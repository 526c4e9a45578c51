"""Keeps small records in memory, when no plugin keeps them anywhere better; they are gone with the process.

Implements `hookspecs.RecordStore`.
"""

import time
from collections.abc import Callable

MOST_KEPT = 10_000
"""Records; beyond that the oldest one is forgotten."""


class MemoryRecordStore:
    """A store for one process.

    Args:
        clock: Tells seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[tuple[str, str, str], tuple[bytes, float | None]] = {}

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Keep a record, over one of the same kind, key and owner."""
        while len(self._records) >= MOST_KEPT:
            del self._records[next(iter(self._records))]
        self._records[kind, key, owner] = value, None if seconds is None else self._clock() + seconds

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """The record, if it is there and its time is not over."""
        value, until = self._records.get((kind, key, owner), (None, None))
        if until is not None and self._clock() >= until:
            del self._records[kind, key, owner]
            return None
        return value

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Forget a record. Returns whether it was there."""
        there = await self.get(kind, key, owner) is not None
        self._records.pop((kind, key, owner), None)
        return there
