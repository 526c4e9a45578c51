"""The database of the plugin: failures become errors of the gateway, and each principal has a quota.

A failure is reported once, until a write succeeds again.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway_core import Database, Gateway, GatewayError, UnavailableError

T = TypeVar("T")

LOCK_SECONDS = 1.0
"""Time to wait for a lock that another process holds."""
_SLOW_SECONDS = 0.5
_PAUSE_SECONDS = 10.0
"""After a failure that took long, operations fail at once for this time, so that requests do not queue."""


class StoredTooMuchError(GatewayError):
    """A value is larger than what the principal may store."""

    default_status = 413
    default_code = "storage_quota_exceeded"


class Store:
    """Runs operations on the database.

    Args:
        gateway: Receives error reports.
        path: Returns the path of the file; `None` keeps the data in memory.
        schema: SQL that creates missing tables.
        upgrade: Converts the tables of an earlier version.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self,
        gateway: Gateway,
        path: Callable[[], Path | None],
        schema: str,
        upgrade: Callable[[sqlite3.Connection], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway = gateway
        self._path = path
        self._clock = clock
        self._database = Database(
            path, schema, upgrade=upgrade, timeout=LOCK_SECONDS, on_corrupt=self._report_replacement
        )
        self._paused_until = float("-inf")
        self.failing = False
        """Whether the last write failed."""

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Runs an operation that does not need to write.

        Raises:
            UnavailableError: The database cannot be used.
        """
        return await self._run(operation)

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Runs an operation in a transaction.

        Raises:
            UnavailableError: The database cannot be written.
        """
        result = await self._run(operation)
        self.failing = False
        return result

    async def close(self) -> None:
        """Closes the database."""
        await self._database.close()

    async def _run(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        began = self._clock()
        if began < self._paused_until:
            raise self._error()
        try:
            return await self._database.run(operation)
        except (sqlite3.Error, OSError, GatewayError) as error:
            if isinstance(error, StoredTooMuchError):
                raise
            if self._clock() - began > _SLOW_SECONDS:
                self._paused_until = self._clock() + _PAUSE_SECONDS
            problem = self._error()
            problem.__cause__ = error
            if not self.failing:
                self.failing = True
                self._gateway.report(self._error(f": {error}"))
            raise problem from error

    def _error(self, reason: str = "") -> UnavailableError:
        return UnavailableError(
            f"the database of stored responses and chats cannot be used{reason}",
            source=str(self._source()),
            hint="check its disk space and permissions, and whether another process has locked it" if reason else None,
            code="state_not_writable",
            retry_after=_PAUSE_SECONDS,
        )

    def _source(self) -> object:
        try:
            return self._path() or "memory"
        except GatewayError as error:  # the state directory cannot be created
            return error.source

    def _report_replacement(self, broken: Path) -> None:
        self._gateway.report(
            UnavailableError(
                "the database of stored responses and chats was corrupt and has been replaced by an empty one",
                source=str(broken),
                hint="stored responses, pending approvals and chat memories are lost; restore them from a backup",
                code="state_replaced",
            )
        )


class Quota:
    """Limits the size of what each principal stores. The oldest values are deleted first.

    Sizes are measured once per principal, and then counted. It runs in the database's thread.

    Args:
        limit: Returns the maximum size in bytes for each principal.
        measure: SQL that returns the size of a principal's values.
        oldest: SQL that deletes some of the principal's oldest values.
    """

    def __init__(self, limit: Callable[[], int], measure: str, oldest: str) -> None:
        self._limit = limit
        self._measure = measure
        self._oldest = oldest
        self._used: dict[str, int] = {}

    def reserve(self, database: sqlite3.Connection, owner: str, size: int) -> None:
        """Makes room for new values, and counts them.

        Raises:
            StoredTooMuchError: The values alone are larger than the limit.
        """
        limit = self._limit()
        if size > limit:
            raise StoredTooMuchError(f"the data is larger than {limit} bytes (max_stored)")
        used = self._used.pop(owner, None)  # measured again if the transaction fails
        if used is None:
            used = self._size(database, owner)
        while used + size > limit:
            if database.execute(self._oldest, (owner,)).rowcount == 0:
                break
            used = self._size(database, owner)
        self._used[owner] = used + size

    def _size(self, database: sqlite3.Connection, owner: str) -> int:
        return database.execute(self._measure, (owner,)).fetchone()[0] or 0

    def forget(self, owner: str | None = None) -> None:
        """Measures again at the next write, for one principal or for all."""
        if owner is None:
            self._used.clear()
        else:
            self._used.pop(owner, None)
