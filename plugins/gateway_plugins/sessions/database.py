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

IN_MEMORY = ":memory:"


class Database:
    """A SQLite database.

    Args:
        file: Returns the path, or `:memory:`; called on first use.
        schema: SQL that creates missing tables.
    """

    def __init__(self, file: Callable[[], str], schema: str) -> None:
        self._file = file
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        self._connection: sqlite3.Connection | None = None

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Calls a function in the database thread, in a transaction that is rolled back if the function raises.

        Raises:
            sqlite3.Error: The database cannot be read or written.
            Exception: Any exception of the function.
        """

        def work() -> T:
            if self._connection is None:
                self._connection = _open(self._file(), self._schema)
            with self._connection:
                return operation(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Closes the database after all pending operations."""

        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown(wait=False)


def _open(file: str, schema: str) -> sqlite3.Connection:
    if file != IN_MEMORY:
        # Chats are private: only the owner of the process can read the file.
        os.close(os.open(Path(file), os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(file, check_same_thread=False)
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {setting}")
    connection.executescript(schema)
    return connection
