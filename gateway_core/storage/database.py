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

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WAL_BYTES = 16 * 1024 * 1024
"""Size to which the write-ahead log is truncated after a large transaction."""


class UnknownSchemaError(sqlite3.DatabaseError):
    """The file is a SQLite database with other tables."""


class Database:
    """A SQLite database.

    Args:
        path: Returns the path of the file; `None` keeps the data in memory. It is called on first use.
        schema: SQL that creates missing tables.
        durable: Whether a committed transaction must survive a power failure; it always survives a crash of the
            process.
        upgrade: Converts the tables of an earlier version; called before `schema` is executed.
        timeout: Seconds to wait for a lock that another process holds.
        on_corrupt: Enables the replacement of a corrupt file by an empty one; the file is renamed to `*.broken`. Called
            in the event loop with its new path.
    """

    def __init__(
        self,
        path: Callable[[], Path | None],
        schema: str,
        *,
        durable: bool = False,
        upgrade: Callable[[sqlite3.Connection], None] | None = None,
        timeout: float = 5.0,
        on_corrupt: Callable[[Path], None] | None = None,
    ) -> None:
        self._path = path
        self._schema = schema
        self._durable = durable
        self._upgrade = upgrade
        self._timeout = timeout
        self._on_corrupt = on_corrupt
        self._set_aside_as: Path | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function in the database thread, in a transaction that is rolled back if the function raises.

        Raises:
            sqlite3.Error: The database cannot be opened, read or written.
            OSError: The file cannot be created.
            Exception: Any exception of the function.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, operation)
        finally:
            broken, self._set_aside_as = self._set_aside_as, None
            if broken is not None and self._on_corrupt is not None:
                self._on_corrupt(broken)

    def _work(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._transact(operation)
        except sqlite3.DatabaseError as error:
            if self._on_corrupt is None or not _is_corrupt(error):
                raise
            self._close()
            self._set_aside()
            return self._transact(operation)

    def _transact(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._open()
        with self._connection:
            return operation(self._connection)

    async def close(self) -> None:
        """Close the database after all pending operations. The next operation opens it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _open(self) -> sqlite3.Connection:
        path = self._path()
        if path is not None:
            # Only the gateway's user can read the file. SQLite creates its other files with the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path or ":memory:", timeout=self._timeout, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            self._create_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_tables(self, connection: sqlite3.Connection) -> None:
        try:
            if self._upgrade is not None:
                with connection:
                    self._upgrade(connection)
            connection.executescript(self._schema)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise UnknownSchemaError(str(error)) from error
            raise

    def _set_aside(self) -> None:
        path = self._path()
        if path is None:
            return
        broken = path.with_suffix(".broken")
        path.replace(broken)
        for rest in ("-wal", "-shm"):
            Path(f"{path}{rest}").unlink(missing_ok=True)
        self._set_aside_as = broken


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, UnknownSchemaError) or (code is not None and code & 0xFF in _CORRUPT)
