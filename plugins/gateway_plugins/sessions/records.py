"""`RecordStore` on SQLite: small records with an owner and an optional expiry."""

import sqlite3
import time
from collections.abc import Callable

from gateway_core import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, value BLOB NOT NULL, expires REAL,
    PRIMARY KEY (kind, key, owner)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires) WHERE expires IS NOT NULL;
"""
_LIVE = "kind = ? AND key = ? AND owner = ? AND (expires IS NULL OR expires > ?)"
_SWEEP_EVERY = 100
"""Number of writes after which expired records are deleted."""


class SqliteRecords:
    """A record store in a database.

    Args:
        database: A database with the tables of `SCHEMA`.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._puts = 0

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Stores a record, replacing one with the same kind, key and owner."""
        now = self._clock()
        row = (kind, key, owner, value, None if seconds is None else now + seconds)
        self._puts += 1
        sweep = self._puts % _SWEEP_EVERY == 0

        def put(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", row)
            if sweep:
                database.execute("DELETE FROM records WHERE expires <= ?", (now,))

        await self._database.run(put)

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """Returns the record, or `None` if it is missing or expired."""
        select, row = f"SELECT value FROM records WHERE {_LIVE}", (kind, key, owner, self._clock())  # noqa: S608
        found: tuple[bytes] | None = await self._database.run(lambda database: database.execute(select, row).fetchone())
        return found[0] if found else None

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Deletes a record. Returns whether it existed."""
        delete, row = f"DELETE FROM records WHERE {_LIVE}", (kind, key, owner, self._clock())  # noqa: S608
        return await self._database.run(lambda database: database.execute(delete, row).rowcount) > 0
