"""Writes audit records in a background thread, so that the event loop never waits for the disk.

A failed write is retried with the next record, and every second.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
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

_Item = tuple[bytes, bool] | asyncio.Future[OSError | None]


class AuditWriter:
    """Writes records in the order of the calls to `put`. All methods are for the event loop.

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
        # Records with whether to flush them, and the futures that `settled` waits for; `None` ends the thread. Only the
        # thread changes `_pending`.
        self._new: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._pending: deque[bytes] = deque()
        self._to_sync = False
        self._dropped = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="audit log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Write pending records and close the file. Takes at most ten seconds."""
        self._stopping = True
        self._new.put(None)
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    def put(self, event: str, fields: Mapping[str, Any], *, admin: bool) -> None:
        """Queue a record. Does not block."""
        if self._new.qsize() + len(self._pending) >= MAX_PENDING:
            self._dropped += 1
            return
        if self._dropped:
            self._new.put((self._as_json(DROPPED, {"records": self._dropped}), False))
            self._dropped = 0
        to_sync = self._fsync == "always" or (admin and self._fsync == "admin")
        self._new.put((self._as_json(event, fields), to_sync))

    async def settled(self) -> OSError | None:
        """Wait until all queued records are written, and flushed if required. Returns the error if they are not."""
        if self._stopping:
            return OSError("the audit log is closed")
        future: asyncio.Future[OSError | None] = self._loop.create_future()
        self._new.put(future)
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
            waiting, stopping = self._next_batch()
            problem = self._write()
            failed_before, self.problem = self.problem is not None, problem
            if failed_before is not (problem is not None):
                self._call_in_loop(self._health, problem)
            for future in waiting:
                self._call_in_loop(_settle, future, problem)
        self._end()

    def _next_batch(self) -> tuple[list[asyncio.Future[OSError | None]], bool]:
        """Wait for items, and take all that are queued. Returns the waiting futures, and whether to stop."""
        waiting: list[asyncio.Future[OSError | None]] = []
        with suppress(queue.Empty):
            item = self._new.get(timeout=RETRY_SECONDS if self.problem is not None else None)
            while item is not None:
                if isinstance(item, asyncio.Future):
                    waiting.append(item)
                else:
                    record, to_sync = item
                    self._pending.append(record)
                    self._to_sync |= to_sync
                item = self._new.get_nowait()
            return waiting, True
        return waiting, False

    def _write(self) -> OSError | None:
        try:
            self.file.append(self._pending)
            if self._to_sync:
                self.file.sync()
        except OSError as error:
            return error
        self._to_sync = False
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
