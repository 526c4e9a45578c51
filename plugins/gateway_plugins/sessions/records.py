"""`RecordStore` on SQLite: small records with an owner and an optional expiry."""

import sqlite3
import time
from collections.abc import Callable, Iterable

from gateway_plugins.sessions.store import Quota, Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, value BLOB NOT NULL, expires REAL,
    used REAL NOT NULL DEFAULT 0, PRIMARY KEY (kind, key, owner)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_expiry ON records (expires) WHERE expires IS NOT NULL;
CREATE INDEX IF NOT EXISTS records_by_use ON records (owner, used);
"""
_LIVE = "kind = ? AND key = ? AND owner = ? AND (expires IS NULL OR expires > ?)"
_SWEEP_EVERY = 100
"""Number of writes after which expired records are deleted."""
_MEASURE = "SELECT sum(length(value)) FROM records WHERE owner = ?"
_DELETE_OLDEST = """
DELETE FROM records WHERE (kind, key, owner) IN (
    SELECT kind, key, owner FROM records WHERE owner = ? ORDER BY used LIMIT 8
)
"""


def upgrade(database: sqlite3.Connection) -> None:
    """Adds the column `used`, which earlier versions did not have."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(records)")}
    if columns and "used" not in columns:
        database.execute("ALTER TABLE records ADD COLUMN used REAL NOT NULL DEFAULT 0")


class SqliteRecords:
    """A record store in a database.

    Args:
        store: A database with the tables of `SCHEMA`.
        limit: Returns the maximum size in bytes of each principal's records.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(self, store: Store, limit: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._quota = Quota(limit, _MEASURE, _DELETE_OLDEST)
        self._puts = 0

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Stores a record, replacing one with the same kind, key and owner.

        Raises:
            UnavailableError: The database cannot be written.
            StoredTooMuchError: The record is larger than the limit.
        """
        now = self._clock()
        row = (kind, key, owner, value, None if seconds is None else now + seconds, now)
        self._puts += 1
        sweep = self._puts % _SWEEP_EVERY == 0

        def put(database: sqlite3.Connection) -> None:
            if sweep and database.execute("DELETE FROM records WHERE expires <= ?", (now,)).rowcount:
                self._quota.forget()
            delete = "DELETE FROM records WHERE kind = ? AND key = ? AND owner = ?"
            if database.execute(delete, (kind, key, owner)).rowcount:
                self._quota.forget(owner)
            self._quota.reserve(database, owner, len(value))
            try:
                database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.Error:
                self._quota.forget(owner)
                raise

        await self._store.write(put)

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """Returns the record, or `None` if it is missing or expired.

        Raises:
            UnavailableError: The database cannot be read.
        """
        select, row = f"SELECT value FROM records WHERE {_LIVE}", (kind, key, owner, self._clock())  # noqa: S608
        found: tuple[bytes] | None = await self._store.read(lambda database: database.execute(select, row).fetchone())
        return found[0] if found else None

    async def touch(self, kind: str, keys: Iterable[str], owner: str, *, seconds: float | None) -> None:
        """Renews the lifetime of records.

        Raises:
            UnavailableError: The database cannot be written.
        """
        now = self._clock()
        expires = None if seconds is None else now + seconds
        update = f"UPDATE records SET expires = ?, used = ? WHERE {_LIVE}"  # noqa: S608
        rows = [(expires, now, kind, key, owner, now) for key in keys]
        await self._store.write(lambda database: database.executemany(update, rows))

    async def keys(self, kind: str, owner: str) -> list[str]:
        """Returns the keys of an owner's records of one kind, sorted.

        Raises:
            UnavailableError: The database cannot be read.
        """
        select = (
            "SELECT key FROM records WHERE kind = ? AND owner = ? AND (expires IS NULL OR expires > ?) ORDER BY key"
        )
        row = (kind, owner, self._clock())
        found: list[tuple[str]] = await self._store.read(lambda database: database.execute(select, row).fetchall())
        return [key for (key,) in found]

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Deletes a record. Returns whether it existed.

        Raises:
            UnavailableError: The database cannot be written.
        """
        delete, row = f"DELETE FROM records WHERE {_LIVE}", (kind, key, owner, self._clock())  # noqa: S608

        def run(database: sqlite3.Connection) -> bool:
            self._quota.forget(owner)
            return database.execute(delete, row).rowcount > 0

        return await self._store.write(run)
