"""Stores records in memory until the process exits. It is the default when no plugin provides a record store."""

import time
from collections.abc import Callable

MAX_RECORDS = 10_000
"""Maximum number of records. Beyond it, the oldest record is evicted."""


class MemoryRecordStore:
    """Implements `hooks.specs.RecordStore` in memory.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[tuple[str, str, str], tuple[bytes, float | None]] = {}

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Store a record. It replaces a record with the same kind, key and owner."""
        while len(self._records) >= MAX_RECORDS:
            del self._records[next(iter(self._records))]
        self._records[kind, key, owner] = value, None if seconds is None else self._clock() + seconds

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """Return a record, or `None` if it does not exist or has expired."""
        value, until = self._records.get((kind, key, owner), (None, None))
        if until is not None and self._clock() >= until:
            del self._records[kind, key, owner]
            return None
        return value

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Delete a record. Return whether it existed."""
        existed = await self.get(kind, key, owner) is not None
        self._records.pop((kind, key, owner), None)
        return existed
