"""Stores overrides in a SQLite database; a committed override survives a power failure.

It does not use a clock: `overrides/manager.py` expires overrides.
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import astuple

from gateway_core import ConfigError, UnavailableError
from gateway_plugins.security.access_query import Override

logger = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS overrides (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, pattern TEXT NOT NULL, principal TEXT NOT NULL, reason TEXT NOT NULL,
    granted_by TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL
) STRICT
"""
_COLUMNS = "id, kind, pattern, principal, reason, granted_by, created, expires"


class OverrideFile:
    """The database file. All methods block, and may be called from any thread.

    Args:
        path: The path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self) -> list[Override]:
        """Open or create the file. Returns its overrides, oldest first.

        Raises:
            ConfigError: The file cannot be created or read.
        """
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._unusable(error) from error
            # Overrides only grant access, so it is safe to start without a corrupt file.
            broken = self.path.with_suffix(".broken")
            logger.error(
                "the database %s is corrupt and was renamed to %s; its overrides are lost", self.path, broken.name
            )
            self.close()
            self.path.replace(broken)
            for rest in ("-wal", "-shm"):
                Path(f"{self.path}{rest}").unlink(missing_ok=True)
        except OSError as error:
            raise self._unusable(error) from error
        return self._open()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def add(self, override: Override) -> None:
        """Store an override.

        Raises:
            UnavailableError: The file could not be written.
        """
        with self._transaction() as connection:
            connection.execute(f"INSERT INTO overrides ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(override))  # noqa: S608

    def remove(self, ids: Iterable[str]) -> None:
        """Delete overrides.

        Raises:
            UnavailableError: The file could not be written.
        """
        with self._transaction() as connection:
            connection.executemany("DELETE FROM overrides WHERE id = ?", [(each,) for each in ids])

    def _open(self) -> list[Override]:
        # SQLite creates its other files with the mode of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self._lock:
            connection = sqlite3.connect(self.path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_SCHEMA)
            return read(connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection
            try:
                if connection is None:
                    raise sqlite3.OperationalError("the file is closed")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise UnavailableError(
                    "the database of overrides cannot be written", source=str(self.path), code="state_not_writable"
                ) from error

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"cannot open the database of overrides: {error}",
            source=str(self.path),
            hint="give the gateway's user write permission, or choose another [state] folder",
        )


def read(connection: sqlite3.Connection) -> list[Override]:
    """Read all overrides, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM overrides ORDER BY created, id")  # noqa: S608
    return [Override(*row) for row in rows]
