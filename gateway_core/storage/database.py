"""Accesses a SQLite database from a single thread, so that disk I/O does not block the event loop.

The database is opened, and created if missing, on first use.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Database:
    """A SQLite database.

    Args:
        path: Returns the path of the file; `None` keeps the data in memory. It is called on first use.
        schema: SQL that creates missing tables.
        durable: Whether a committed transaction must survive a power failure; it always survives a crash of the
            process.
    """

    def __init__(self, path: Callable[[], Path | None], schema: str, *, durable: bool = False) -> None:
        self._path = path
        self._schema = schema
        self._durable = durable
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function in the database thread, in a transaction that is rolled back if the function raises.

        Raises:
            sqlite3.Error: The database cannot be opened, read or written.
            OSError: The file cannot be created.
            Exception: Any exception of the function.
        """

        def work() -> T:
            if self._connection is None:
                self._connection = self._open()
            with self._connection:
                return operation(self._connection)

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Close the database after all pending operations. The next operation opens it again."""

        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, close)
            thread.shutdown(wait=False)

    def _open(self) -> sqlite3.Connection:
        path = self._path()
        if path is not None:
            # Only the gateway's user can read the file. SQLite creates its other files with the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path or ":memory:", check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection
