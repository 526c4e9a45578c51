"""Small records, each for its owner alone, for a time.

Implements `RecordStore`.
"""

import sqlite3
import time
from collections.abc import Callable

from gateway_plugins.sessions.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, value BLOB NOT NULL, expires REAL,
    PRIMARY KEY (kind, key, owner)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires) WHERE expires IS NOT NULL;
"""
_SWEEP_EVERY = 100
"""After this many records put, those whose time is over are removed."""


class SqliteRecords:
    """The records in a database.

    Args:
        database: Has the tables of `SCHEMA`.
        clock: Tells seconds since the epoch.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._puts = 0

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Keep a record, over one of the same kind, key and owner."""
        now = self._clock()
        row = (kind, key, owner, value, None if seconds is None else now + seconds)
        self._puts += 1
        sweep = self._puts % _SWEEP_EVERY == 0

        def put(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", row)
            if sweep:
                database.execute("DELETE FROM records WHERE expires <= ?", (now,))

        await self._database.do(put)

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """The record, if it is there and its time is not over."""

        def get(database: sqlite3.Connection) -> bytes | None:
            found: tuple[bytes] | None = database.execute(
                "SELECT value FROM records"
                " WHERE kind = ? AND key = ? AND owner = ? AND (expires IS NULL OR expires > ?)",
                (kind, key, owner, self._clock()),
            ).fetchone()
            return found[0] if found else None

        return await self._database.do(get)

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Forget a record. Returns whether it was there."""

        def delete(database: sqlite3.Connection) -> bool:
            done = database.execute(
                "DELETE FROM records WHERE kind = ? AND key = ? AND owner = ? AND (expires IS NULL OR expires > ?)",
                (kind, key, owner, self._clock()),
            )
            return done.rowcount > 0

        return await self._database.do(delete)
