"""Follows what happens to the watched paths, and reloads when it has calmed down.

One task does it all. An event or the time makes it look; a look that differs from the last one makes it wait until the
files are quiet, and then it reloads. It knows neither agents nor the system's events.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from gateway_core import GatewayError, PluginError
from gateway_plugins.hot_reload.event_source import SOURCE, Listening
from gateway_plugins.hot_reload.settings import Settings
from gateway_plugins.hot_reload.snapshot import Snapshot, differing, take_snapshot, update_snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHECK_SECONDS = 1.0
# After an event, more of them come; a look in between costs more than it tells.
_GATHER_SECONDS = 0.02
# A watch on a folder that is new may come after what was written into it.
_SOON_SECONDS = 1.0
# How often files that change all the time are looked at for a moment in which they do not.
_STEADY_TRIES = 25


class Reloader:
    """The one task.

    Args:
        settings: Times, and how changes are noticed.
        reload: What to do when files have changed.
        report: Told what goes wrong.
    """

    def __init__(
        self,
        settings: Settings,
        mode: Literal["auto", "inotify", "poll"],
        reload: Callable[[], Awaitable[object]],
        report: Callable[[GatewayError], None],
    ) -> None:
        self.settings = settings
        self.reloads = 0
        self._reload = reload
        self._report = report
        self._paths: Sequence[Path] = ()
        self._wake = asyncio.Event()
        # Its own thread: agents' tools may use up a shared pool.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="hot-reload")
        self.listening = Listening(mode, self._wake, report, self._executor)
        self._seen: Snapshot | None = None
        self._next_look = 0.0
        self._cost = 0.0
        self._heard = False
        self._finished = False

    @property
    def paths(self) -> Sequence[Path]:
        """What is watched."""
        return self._paths

    def follow(self, paths: Sequence[Path]) -> None:
        """Watch these paths from now on."""
        if tuple(paths) != self._paths:
            self._paths = tuple(paths)
            self._wake.set()

    def finish(self) -> None:
        """End after what it does now."""
        self._finished = True
        self._wake.set()

    async def run(self) -> None:
        """Follow until it is cancelled or told to finish. Nothing else ends it."""
        try:
            while not self._finished:
                try:
                    await self._step()
                except Exception as error:
                    logger.exception("hot reload failed, and goes on")
                    problem = PluginError(f"failed: {type(error).__name__}", source=SOURCE)
                    problem.__cause__ = error
                    self._report(problem)
                    await asyncio.sleep(CHECK_SECONDS)
        finally:
            await self.listening.stop()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _step(self) -> None:
        if not self._paths:
            await self._wake.wait()
        woken = self._heard = await self._wait(min(CHECK_SECONDS, self._next_look - time.monotonic()))
        if woken:
            self.listening.heard()
        moment = time.monotonic()
        restarted = await self.listening.keep(self._paths)
        if not (woken or restarted or moment >= self._next_look):
            return
        found = await self._look()
        self._plan_next(found)
        if self._seen is not None and not differing(self._seen, found):
            # However often it is woken for nothing, looking takes no more than a tenth of the time.
            await asyncio.sleep(9 * self._cost if woken else 0)
            return
        expected = restarted or self.listening.polling or self._seen is None
        found, quiet = await self._settle(found, moment)
        if not expected and not self._heard:
            await self.listening.unheard()
        # What has not come to rest is looked at once more when it has.
        self._seen = found if quiet else None
        self._next_look = min(self._next_look, time.monotonic() + _SOON_SECONDS)
        self.reloads += 1
        await self._reload()

    async def _settle(self, found: Snapshot, since: float) -> tuple[Snapshot, bool]:
        """Wait until nothing changes. Returns the last look, and whether it was quiet before the time was up."""
        until, limit = since + self.settings.debounce, since + self.settings.debounce_limit
        while time.monotonic() < limit:
            if await self._wait(min(until, limit) - time.monotonic()):
                await asyncio.sleep(max(_GATHER_SECONDS, 2 * self._cost))
                moment = time.monotonic()
                self._wake.clear()
                newer = await self._look()
            elif time.monotonic() < until:
                break
            else:
                moment = time.monotonic()
                newer = await self._look() if self.listening.polling else await self._check(found)
                if not differing(found, newer):
                    return newer, True
            if differing(found, newer):
                found, until = newer, moment + self.settings.debounce
        for _ in range(_STEADY_TRIES):
            newer = await self._look()
            if not differing(found, newer):
                break
            found = newer
            await asyncio.sleep(_GATHER_SECONDS)
        return found, False

    async def _check(self, found: Snapshot) -> Snapshot:
        """The same look, with the files that changed looked at once more."""
        changed = differing(self._seen or {}, found)
        fresh = await self._in_thread(lambda: update_snapshot(changed))
        newer = {path: stamp for path, stamp in found.items() if path not in set(changed)}
        return {**newer, **fresh}

    async def _look(self) -> Snapshot:
        began = time.monotonic()
        found = await self._in_thread(lambda: take_snapshot(self._paths))
        self._cost = time.monotonic() - began
        return found

    def _plan_next(self, found: Snapshot) -> None:
        interval = self.settings.poll_interval if self.listening.polling else self.settings.rescan_interval
        self._next_look = time.monotonic() + interval

    async def _wait(self, seconds: float) -> bool:
        """Wait for an event, at most for some seconds. Returns whether one came, which is then done with."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        self._heard = True
        return True

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
