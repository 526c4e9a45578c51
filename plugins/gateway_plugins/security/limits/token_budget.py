"""Counts the tokens that each key uses per UTC day, as reported by upstreams.

The limit is enforced in `limits/admission.py`.
"""

import asyncio
import logging
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gateway_core import ConfigError, Database
from gateway_plugins.security.clock import Clock

logger = logging.getLogger(__name__)

FILE_NAME = "tokens.db"
DAY = 86400

# A gateway killed with SIGKILL loses the counts of at most this many seconds.
_FLUSH_SECONDS = 1.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS used (day INTEGER, who TEXT, tokens INTEGER, PRIMARY KEY (day, who)) STRICT"
_READ = "SELECT day, who, tokens FROM used WHERE day >= ?"
_ADD = "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens"


class TokenBudget:
    """Token counts that survive a restart.

    Args:
        folder: The folder of the database; `None` keeps the counts in memory only.
        clock: The source of time.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = folder / FILE_NAME if folder else None
        self._database = Database(lambda: self._path, _SCHEMA) if folder else None
        self._clock = clock
        self._used: Counter[tuple[int, str]] = Counter()
        self._unwritten: Counter[tuple[int, str]] = Counter()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TokenBudget":
        """Load today's counts.

        Raises:
            ConfigError: The file cannot be created or read.
        """
        if self._database is not None:
            since = self._today() - 1
            try:
                rows = await self._database.run(lambda database: database.execute(_READ, (since,)).fetchall())
            except (sqlite3.Error, OSError) as error:
                raise ConfigError(
                    f"cannot open the database of token counts: {error}",
                    source=str(self._path),
                    hint="give the gateway's user write permission, or remove the file if it is corrupt",
                ) from error
            self._used = Counter({(day, caller): tokens for day, caller, tokens in rows})
            self._task = asyncio.create_task(self._flush_periodically(self._database))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write pending counts."""
        if self._task is not None and self._database is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self._flush(self._database)
            await self._database.close()

    def used(self, caller: str) -> int:
        """Return the number of tokens that `caller` used today."""
        return self._used[self._today(), caller]

    def add(self, caller: str, tokens: int) -> None:
        """Count tokens. Does not block; the database is written in the background."""
        if tokens <= 0:
            return
        today = self._today()
        for old in [key for key in self._used if key[0] < today - 1]:
            del self._used[old]
        self._used[today, caller] += tokens
        if self._database is not None:
            self._unwritten[today, caller] += tokens
            self._changed.set()

    def resets_in(self) -> float:
        """Seconds until the end of the day."""
        return DAY - self._clock.wall() % DAY

    def _today(self) -> int:
        return int(self._clock.wall() // DAY)

    async def _flush_periodically(self, database: Database) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.shield(asyncio.create_task(self._flush(database)))
            await asyncio.sleep(_FLUSH_SECONDS)

    async def _flush(self, database: Database) -> None:
        new, self._unwritten = self._unwritten, Counter()
        if not new:
            return
        rows = [(day, caller, tokens) for (day, caller), tokens in new.items()]
        oldest = self._today() - 1

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD, rows)
            connection.execute("DELETE FROM used WHERE day < ?", (oldest,))

        try:
            await database.run(write)
        except (sqlite3.Error, OSError) as error:
            logger.warning("could not write token counts; retrying: %s", error)
            self._unwritten.update(new)
            self._changed.set()
