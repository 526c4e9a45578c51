"""Writes audit records in a background thread, so that the event loop never waits for the disk.

A failed write is retried with the next record, and every second.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway_plugins.security.audit.file import AuditFile
from gateway_plugins.security.audit.hash_chain import DROPPED
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.settings import Fsync

logger = logging.getLogger(__name__)


MAX_PENDING = 10_000
"""Maximum number of records that wait in memory while writing fails; further records are counted and dropped."""
RETRY_SECONDS = 1.0

_STOP_SECONDS = 10.0


class AuditWriter:
    """Writes records in the order of the calls to `put`.

    Args:
        file: An open file; only the thread may use it after `start`.
        fsync: The records after which to flush to the disk: all, those of admins, or none.
        health: Called in the event loop with the error when writing starts to fail, and with `None` on recovery.
        loop: The event loop.
        clock: The source of time.
    """

    def __init__(
        self,
        file: AuditFile,
        fsync: Fsync,
        health: Callable[[OSError | None], None],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:
        self.file = file
        self.problem: OSError | None = None
        """The error of the last write; `None` if it succeeded."""
        self._fsync = fsync
        self._health = health
        self._loop = loop
        self._clock = clock
        # The condition guards the attributes that the loop and the thread share; only the thread changes `_pending`.
        self._wake = threading.Condition()
        self._new: deque[bytes] = deque()
        self._waiting: list[asyncio.Future[OSError | None]] = []
        self._dropped = 0
        self._to_sync = False
        self._stopping = False
        self._pending: deque[bytes] = deque()
        self._thread = threading.Thread(target=self._work, name="audit log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write pending records and close the file. Blocks for at most ten seconds."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(_STOP_SECONDS)

    def put(self, event: str, fields: Mapping[str, Any], *, admin: bool) -> None:
        """Queue a record. Does not block."""
        record = self._as_json(event, fields)
        with self._wake:
            if len(self._new) + len(self._pending) >= MAX_PENDING:
                self._dropped += 1
                return
            if self._dropped:
                self._new.append(self._as_json(DROPPED, {"records": self._dropped}))
                self._dropped = 0
            self._new.append(record)
            self._to_sync |= self._fsync == "always" or (admin and self._fsync == "admin")
            self._wake.notify()

    async def settled(self) -> OSError | None:
        """Wait until all queued records are written, and flushed if required. Returns the error if they are not."""
        future: asyncio.Future[OSError | None] = self._loop.create_future()
        with self._wake:
            if self._stopping:
                return OSError("the audit log is closed")
            self._waiting.append(future)
            self._wake.notify()
        return await future

    def _as_json(self, event: str, fields: Mapping[str, Any]) -> bytes:
        record = {"ts": round(self._clock.wall(), 6), "event": event, **fields}
        try:
            return orjson.dumps(record)
        except TypeError:
            # For example a lone surrogate in a name: an escaped record is better than none.
            return orjson.dumps({name: ascii(value) for name, value in record.items()})

    def _work(self) -> None:
        stopping = False
        while not stopping:
            waiting, to_sync, stopping = self._next_batch()
            problem = self._write(to_sync)
            failed_before, self.problem = self.problem is not None, problem
            if failed_before is not (problem is not None):
                self._call_in_loop(self._health, problem)
            for future in waiting:
                self._call_in_loop(_settle, future, problem)
        self._end()

    def _next_batch(self) -> tuple[list[asyncio.Future[OSError | None]], bool, bool]:
        with self._wake:
            if not (self._new or self._waiting or self._stopping):
                self._wake.wait(RETRY_SECONDS if self.problem is not None else None)
            self._pending.extend(self._new)
            self._new.clear()
            waiting, self._waiting = self._waiting, []
            to_sync, self._to_sync = self._to_sync, False
            return waiting, to_sync, self._stopping

    def _write(self, to_sync: bool) -> OSError | None:
        try:
            self.file.append(self._pending)
            if to_sync:
                self.file.sync()
        except OSError as error:
            with self._wake:
                self._to_sync |= to_sync
            return error
        return None

    def _end(self) -> None:
        if self._pending:
            logger.error("%d audit records were lost: %s", len(self._pending), self.problem)
        try:
            if self._fsync != "never":
                self.file.sync()
        except OSError as error:
            logger.warning("could not flush the audit log to the disk: %s", error)
        finally:
            self.file.close()

    def _call_in_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            logger.debug("the event loop is closed")


def _settle(future: "asyncio.Future[OSError | None]", problem: OSError | None) -> None:
    if not future.done():
        future.set_result(problem)
