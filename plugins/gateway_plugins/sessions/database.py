"""A SQLite file and the one thread that talks to it, so that no disk delays the loop.

It knows no table's meaning. The file is opened, and made, when it is first needed.
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
    """One file.

    Args:
        file: Says which, when it is first needed; `:memory:` for none.
        schema: SQL that makes its tables where they are missing.
    """

    def __init__(self, file: Callable[[], str], schema: str) -> None:
        self._file = file
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions")
        self._connection: sqlite3.Connection | None = None

    async def do(self, what: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function in the thread, in a transaction of its own: all of what it writes is kept, or nothing.

        Raises:
            sqlite3.Error: The file cannot be read or written.
            Exception: Whatever the function raises.
        """

        def work() -> T:
            if self._connection is None:
                self._connection = _open(self._file(), self._schema)
            with self._connection:
                return what(self._connection)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Let go of the file, after what was asked before."""

        def close() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        await asyncio.get_running_loop().run_in_executor(self._thread, close)
        self._thread.shutdown(wait=False)


def _open(file: str, schema: str) -> sqlite3.Connection:
    if file != IN_MEMORY:
        # What chats say is nobody else's to read.
        os.close(os.open(Path(file), os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(file, check_same_thread=False)
    for setting in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {setting}")
    connection.executescript(schema)
    return connection
