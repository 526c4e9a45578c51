"""The tokens that each key has used today, as upstreams counted them.

It refuses nothing; `limits.py` does. A day is one of UTC.
"""

import asyncio
import logging
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gateway_core import ConfigError
from gateway_plugins.security.clock import Clock

logger = logging.getLogger(__name__)

FILE_NAME = "tokens.db"
DAY = 86400

# Killed with -9, a gateway forgets no more than what was used in so many seconds.
_WRITE_SECONDS = 1.0
_SCHEMA = "CREATE TABLE IF NOT EXISTS used (day INTEGER, who TEXT, tokens INTEGER, PRIMARY KEY (day, who)) STRICT"
_ADD = "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens"


class TokenBudget:
    """Counts tokens, and remembers them over a restart.

    Args:
        folder: Where to keep them; `None` keeps them in memory only.
        clock: Where the time comes from.
    """

    def __init__(self, folder: Path | None, clock: Clock) -> None:
        self._path = folder / FILE_NAME if folder else None
        self._clock = clock
        self._used: Counter[tuple[int, str]] = Counter()
        self._unwritten: Counter[tuple[int, str]] = Counter()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "TokenBudget":
        """Take up what was used today.

        Raises:
            ConfigError: The file cannot be made or read.
        """
        if self._path is not None:
            try:
                self._used.update(await asyncio.to_thread(self._read, self._today()))
            except (sqlite3.Error, OSError) as error:
                raise ConfigError(
                    f"the file of used tokens cannot be used: {error}",
                    source=str(self._path),
                    hint="give the gateway's user the right to write there, or remove the file if it is broken",
                ) from error
            self._task = asyncio.create_task(self._keep_writing())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is not written yet."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            await self._write_down()

    def used(self, who: str) -> int:
        """The tokens that `who` has used today."""
        return self._used[self._today(), who]

    def add(self, who: str, tokens: int) -> None:
        """Count tokens. Returns at once."""
        if tokens <= 0:
            return
        today = self._today()
        for old in [key for key in self._used if key[0] < today - 1]:
            del self._used[old]
        self._used[today, who] += tokens
        if self._path is not None:
            self._unwritten[today, who] += tokens
            self._changed.set()

    def resets_in(self) -> float:
        """Seconds until the day is over."""
        return DAY - self._clock.wall() % DAY

    def _today(self) -> int:
        return int(self._clock.wall() // DAY)

    async def _keep_writing(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.shield(asyncio.create_task(self._write_down()))
            await asyncio.sleep(_WRITE_SECONDS)

    async def _write_down(self) -> None:
        new, self._unwritten = self._unwritten, Counter()
        try:
            await asyncio.to_thread(self._write, new, self._today())
        except (sqlite3.Error, OSError) as error:
            logger.warning("used tokens could not be written, which is tried again: %s", error)
            self._unwritten.update(new)
            self._changed.set()

    def _connect(self) -> sqlite3.Connection:
        assert self._path is not None
        if not self._path.exists():
            self._path.touch(0o600)
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_SCHEMA)
        return connection

    def _read(self, today: int) -> dict[tuple[int, str], int]:
        connection = self._connect()
        try:
            rows = connection.execute("SELECT day, who, tokens FROM used WHERE day >= ?", (today - 1,))
            return {(day, who): tokens for day, who, tokens in rows}
        finally:
            connection.close()

    def _write(self, new: Counter[tuple[int, str]], today: int) -> None:
        if not new:
            return
        connection = self._connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_ADD, [(day, who, tokens) for (day, who), tokens in new.items()])
            connection.execute("DELETE FROM used WHERE day < ?", (today - 1,))
            connection.execute("COMMIT")
        finally:
            connection.close()
