"""Stores overrides in a SQLite database; a committed override survives a power failure.

It does not use a clock: `overrides/manager.py` expires overrides.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import astuple

from gateway_core import ConfigError, Database, UnavailableError
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
    """The database file.

    Args:
        path: The path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The file's identity and version at the last check.
        self._seen: tuple[int | None, int] | None = None
        # Overrides only grant access, so it is safe to start without a corrupt file.
        self._database = Database(lambda: path, _SCHEMA, durable=True, on_corrupt=self._log_replacement)

    async def open(self) -> list[Override]:
        """Open or create the file. Returns its overrides, oldest first.

        Raises:
            ConfigError: The file cannot be created or read.
        """
        try:
            return await self.changes() or []
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"cannot open the database of overrides: {error}",
                source=str(self._path),
                hint="give the gateway's user write permission, or choose another [state] folder",
            ) from error

    async def changes(self) -> list[Override] | None:
        """Read all overrides, oldest first, if another process changed or replaced the file since the last call.

        Raises:
            sqlite3.Error: The file cannot be read.
            OSError: The file cannot be created.
        """
        if self._seen is not None and self._seen[0] != await self._database.run(lambda _: _identity(self._path)):
            await self._database.close()  # the next operation opens the file that now has the name
            self._seen = None
        state = await self._database.run(self._state)
        if state == self._seen:
            return None
        stored = await self._database.run(read)
        self._seen = state
        return stored

    def _state(self, connection: sqlite3.Connection) -> tuple[int | None, int]:
        # The version changes with each commit of another connection, and not with those of this one.
        [version] = connection.execute("PRAGMA data_version").fetchone()
        return _identity(self._path), version

    async def close(self) -> None:
        """Close the file."""
        await self._database.close()

    async def add(self, override: Override) -> None:
        """Store an override.

        Raises:
            UnavailableError: The file could not be written.
        """
        insert = f"INSERT INTO overrides ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        await self._write(lambda connection: connection.execute(insert, astuple(override)))

    async def remove(self, ids: Iterable[str]) -> None:
        """Delete overrides.

        Raises:
            UnavailableError: The file could not be written.
        """
        rows = [(each,) for each in ids]
        await self._write(lambda connection: connection.executemany("DELETE FROM overrides WHERE id = ?", rows))

    def _log_replacement(self, broken: Path) -> None:
        logger.error(
            "the database %s is corrupt and was renamed to %s; its overrides are lost", self._path, broken.name
        )

    async def _write(self, operation: Callable[[sqlite3.Connection], object]) -> None:
        try:
            await self._database.run(operation)
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                "the database of overrides cannot be written", source=str(self._path), code="state_not_writable"
            ) from error


def read(connection: sqlite3.Connection) -> list[Override]:
    """Read all overrides, oldest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM overrides ORDER BY created, id")  # noqa: S608
    return [Override(*row) for row in rows]


def _identity(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
