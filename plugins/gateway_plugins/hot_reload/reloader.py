"""Detects changes of the watched paths, and reloads after a debounce.

A single task takes a snapshot on each event and at regular intervals. If the snapshot differs from the last one, the
task waits until the files stop changing, and reloads. It does not depend on agents or on the source of the events.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway_core import GatewayError, PluginError
from gateway_plugins.hot_reload.event_source import SOURCE, EventSource
from gateway_plugins.hot_reload.settings import Settings
from gateway_plugins.hot_reload.snapshot import Snapshot, differing, take_snapshot, update_snapshot

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
# Without events, single files such as the configuration are checked this often, so that a revoked key expires within a
# second; folders are expensive to scan.
_FILES_SECONDS = 0.25
# Events come in bursts. A short delay avoids a snapshot for each event.
_BURST_SECONDS = 0.02
# Files may be written to a new folder before it is watched, so it is scanned again soon.
_RESCAN_SOON_SECONDS = 1.0
# A longer reload, of an agent that loads slowly, continues in the background: a change of the settings is not delayed.
_RELOAD_SECONDS = 0.5
# Number of attempts to get two equal snapshots of files that change continuously.
_STEADY_TRIES = 25


class Reloader:
    """The task that watches and reloads.

    Args:
        settings: Intervals and debounce times.
        reload: Called when files have changed.
        report: Called with errors.
    """

    def __init__(
        self,
        settings: Settings,
        reload: Callable[[], Awaitable[object]],
        report: Callable[[GatewayError], None],
    ) -> None:
        self.settings = settings
        self.reloads = 0
        self._reload = reload
        self._report = report
        self.paths: Sequence[Path] = ()
        """The watched paths."""
        self._wake = asyncio.Event()
        # A dedicated thread: agents' tools may exhaust a shared pool.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hot-reload")
        self.event_source = EventSource(settings.mode, self._wake, report, self._in_thread)
        self._snapshot: Snapshot | None = None
        self._next_scan = 0.0
        self._scan_seconds = 0.0
        self._event_seen = False
        self._finished = False
        self._reloading: set[asyncio.Future[object]] = set()

    def watch(self, paths: Sequence[Path]) -> None:
        """Replace the watched paths."""
        if tuple(paths) != self.paths:
            self.paths = tuple(paths)
            self._wake.set()

    def finish(self) -> None:
        """Stop after the current step."""
        self._finished = True
        self._wake.set()

    async def run(self) -> None:
        """Watch until cancelled or finished. Errors are reported and do not stop it."""
        try:
            while not self._finished:
                try:
                    await self._step()
                except Exception as error:
                    self._report_failure(error)
                    await asyncio.sleep(CHECK_SECONDS)
            if self._reloading:
                await asyncio.wait(self._reloading)
        finally:
            for task in self._reloading:
                task.cancel()
            if self._reloading:
                await asyncio.wait(self._reloading)
            await self.event_source.stop()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _step(self) -> None:
        if not self.paths:
            await self._wake.wait()
        seconds = _FILES_SECONDS if self.event_source.polling else CHECK_SECONDS
        woken = self._event_seen = await self._wait(min(seconds, self._next_scan - time.monotonic()))
        if woken:
            self.event_source.event_received()
        moment = time.monotonic()
        restarted = await self.event_source.update(self.paths)
        if not (woken or restarted or moment >= self._next_scan or await self._file_changed()):
            return
        found = await self._take_snapshot()
        interval = self.settings.poll_interval if self.event_source.polling else self.settings.rescan_interval
        self._next_scan = time.monotonic() + interval
        if self._snapshot is not None and not differing(self._snapshot, found):
            # Bounds the cost of irrelevant events: snapshots take at most a tenth of the time.
            await asyncio.sleep(9 * self._scan_seconds if woken else 0)
            return
        expected = restarted or self.event_source.polling or self._snapshot is None
        found, quiet = await self._settle(found, moment)
        if not expected and not self._event_seen:
            await self.event_source.event_missed()
        # If the files are still changing, the next snapshot counts as a change and reloads again.
        self._snapshot = found if quiet else None
        self._next_scan = min(self._next_scan, time.monotonic() + _RESCAN_SOON_SECONDS)
        self.reloads += 1
        reload = asyncio.ensure_future(self._reload())
        self._reloading.add(reload)
        reload.add_done_callback(self._reloaded)
        await asyncio.wait([reload], timeout=_RELOAD_SECONDS)

    def _reloaded(self, reload: "asyncio.Future[object]") -> None:
        self._reloading.discard(reload)
        if not reload.cancelled() and (error := reload.exception()) is not None:
            self._report_failure(error)

    def _report_failure(self, error: BaseException) -> None:
        logger.error("hot reload failed; still watching for changes", exc_info=error)
        problem = PluginError(f"reload failed: {type(error).__name__}", source=SOURCE)
        problem.__cause__ = error
        self._report(problem)

    async def _settle(self, found: Snapshot, since: float) -> tuple[Snapshot, bool]:
        """Wait until nothing changes. Returns the last snapshot, and whether the files were quiet before the limit."""
        until, limit = since + self.settings.debounce, since + self.settings.debounce_limit
        while time.monotonic() < limit:
            if await self._wait(min(until, limit) - time.monotonic()):
                await asyncio.sleep(max(_BURST_SECONDS, 2 * self._scan_seconds))
                moment = time.monotonic()
                self._wake.clear()
                newer = await self._take_snapshot()
            elif time.monotonic() < until:
                break
            else:
                moment = time.monotonic()
                newer = await self._take_snapshot() if self.event_source.polling else await self._check(found)
                if not differing(found, newer):
                    return newer, True
            if differing(found, newer):
                found, until = newer, moment + self.settings.debounce
        for _ in range(_STEADY_TRIES):
            newer = await self._take_snapshot()
            if not differing(found, newer):
                break
            found = newer
            await asyncio.sleep(_BURST_SECONDS)
        return found, False

    async def _check(self, found: Snapshot) -> Snapshot:
        """Return the snapshot with the changed files updated."""
        changed = differing(self._snapshot or {}, found)
        fresh = await self._in_thread(lambda: update_snapshot(changed))
        newer = {path: stamp for path, stamp in found.items() if path not in set(changed)}
        return {**newer, **fresh}

    async def _file_changed(self) -> bool:
        """Whether a watched path that is a file has changed; only if there are no events."""
        if not self.event_source.polling or self._snapshot is None:
            return False
        before = {str(path): self._snapshot.get(str(path)) for path in self.paths}
        files = [path for path, stamp in before.items() if stamp is not None]
        fresh = await self._in_thread(lambda: update_snapshot(files))
        return any(fresh.get(path) != before[path] for path in files)

    async def _take_snapshot(self) -> Snapshot:
        began = time.monotonic()
        found: Snapshot = await self._in_thread(lambda: take_snapshot(self.paths))
        self._scan_seconds = time.monotonic() - began
        return found

    async def _wait(self, seconds: float) -> bool:
        """Wait for an event with a timeout in seconds. Returns whether one arrived, and clears it."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        self._event_seen = True
        return True

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
