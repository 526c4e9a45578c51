"""Stores records in memory until the process exits. It is the default when no plugin provides a record store."""

import time
from collections.abc import Callable, Iterable

MAX_RECORDS = 10_000
"""Maximum number of records. Beyond it, the oldest record is evicted."""
MAX_BYTES = 256 * 1024 * 1024
"""Maximum size of all records. Beyond it, the oldest record is evicted."""


class MemoryRecordStore:
    """Implements `hooks.specs.RecordStore` in memory.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[tuple[str, str, str], tuple[bytes, float | None]] = {}
        self._bytes = 0

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Store a record. It replaces a record with the same kind, key and owner."""
        self._remove((kind, key, owner))
        while self._records and (len(self._records) >= MAX_RECORDS or self._bytes + len(value) > MAX_BYTES):
            self._remove(next(iter(self._records)))
        self._records[kind, key, owner] = value, self._until(seconds)
        self._bytes += len(value)

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """Return a record, or `None` if it does not exist or has expired."""
        value, until = self._records.get((kind, key, owner), (None, None))
        if until is not None and self._clock() >= until:
            self._remove((kind, key, owner))
            return None
        return value

    async def touch(self, kind: str, keys: Iterable[str], owner: str, *, seconds: float | None) -> None:
        """Renew the lifetime of records. They become the newest ones."""
        for key in keys:
            if (value := await self.get(kind, key, owner)) is not None:
                del self._records[kind, key, owner]
                self._records[kind, key, owner] = value, self._until(seconds)

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Delete a record. Return whether it existed."""
        existed = await self.get(kind, key, owner) is not None
        self._remove((kind, key, owner))
        return existed

    async def keys(self, kind: str, owner: str) -> list[str]:
        """Return the keys of an owner's records of one kind, sorted."""
        now = self._clock()
        live = [key for key, (_, until) in self._records.items() if until is None or now < until]
        return sorted(key for found, key, by in live if (found, by) == (kind, owner))

    def _until(self, seconds: float | None) -> float | None:
        return None if seconds is None else self._clock() + seconds

    def _remove(self, key: tuple[str, str, str]) -> None:
        value, _ = self._records.pop(key, (b"", None))
        self._bytes -= len(value)
