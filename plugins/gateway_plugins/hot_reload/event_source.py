"""Manages the source of change events: starts the operating system's file events, monitors and restarts them.

If events are not available or do not arrive, it switches to polling. It does not interpret changes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gateway_core import GatewayError, PluginError
from gateway_plugins.hot_reload.watch_targets import WatchTarget, silent_file_system, watch_targets

if TYPE_CHECKING:
    from gateway_plugins.hot_reload.watchdog_source import WatchdogSource

logger = logging.getLogger(__name__)

SOURCE = "plugin hot_reload"
# A single event may be lost. This many changes in a row without an event mean that events do not arrive.
_MAX_MISSED = 2


class EventSource:
    """The change events of some paths, or polling if there are no events.

    Args:
        mode: The configured mode.
        wake: Set on each event.
        report: Called when the watcher is restarted, and when it switches to polling.
        in_thread: Makes a blocking call in a thread.
    """

    def __init__(
        self,
        mode: Literal["auto", "inotify", "poll", "off"],
        wake: asyncio.Event,
        report: Callable[[GatewayError], None],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._mode = mode
        self._wake = wake
        self._report = report
        self._in_thread = in_thread
        self._targets: frozenset[WatchTarget] = frozenset()
        self._watcher: WatchdogSource | None = None
        self._missed = 0
        self.polling = mode == "poll"
        self.reason = f'mode = "{mode}"' if mode != "auto" else ""
        self.restarts = 0

    @property
    def mode(self) -> str:
        """The effective mode: `inotify`, `poll`, or `starting` before it is known."""
        return "poll" if self.polling else "inotify" if self._watcher is not None else "starting"

    @property
    def alive(self) -> bool:
        """Whether changes are detected: all threads are alive, or it polls."""
        return self.polling or (self._watcher is not None and self._watcher.alive)

    async def update(self, paths: Sequence[Path]) -> bool:
        """Watch these paths. Returns whether the watcher was (re)started."""
        if self.polling:
            return False
        wanted = await self._in_thread(lambda: watch_targets(paths))
        if wanted == self._targets and self.alive:
            return False
        if self._watcher is not None and self._watcher.died:
            self.restarts += 1
            self._report(
                PluginError("a file watcher thread died; restarting the watcher", source=SOURCE, code="watcher_died")
            )
        await self.stop()
        await self._start(wanted)
        return True

    def event_received(self) -> None:
        """Record that an event arrived."""
        self._missed = 0

    async def event_missed(self) -> None:
        """Record a change for which no event arrived. Repeated misses switch to polling."""
        self._missed += 1
        if self._mode == "auto" and self._missed >= _MAX_MISSED:
            await self._poll("changes were found for which no event arrived")

    async def stop(self) -> None:
        """Stop watching."""
        watcher, self._watcher, self._targets = self._watcher, None, frozenset()
        if watcher is not None:
            await self._in_thread(watcher.stop)

    async def _start(self, wanted: frozenset[WatchTarget]) -> None:
        silent = silent_file_system(target.folder for target in wanted) if self._mode == "auto" else None
        if silent is not None:
            await self._poll(f"a watched folder is on a {silent} file system, which sends no events")
            return
        try:
            # Imported here, because it is slow and polling does not need it.
            from gateway_plugins.hot_reload.watchdog_source import WatchdogSource

            # Assigned before it starts, so that `stop` also stops it if this call is cancelled.
            self._watcher = WatchdogSource(wanted, self._wake)
            await self._in_thread(self._watcher.start)
        except FileNotFoundError:  # a folder was removed in the meantime: the next check retries
            self._watcher = None
            return
        except (OSError, ImportError) as error:
            self._watcher = None
            reason = error.strerror or str(error) if isinstance(error, OSError) else "watchdog is not installed"
            await self._poll(reason)
            return
        self._targets = wanted
        if self._mode == "auto":
            self.reason = "file system events are available"

    async def _poll(self, reason: str) -> None:
        await self.stop()
        self.polling, self.reason = True, reason
        logger.warning("polling for file changes: %s", reason)
        self._report(
            PluginError(
                f"file system events are not available ({reason}); polling for changes",
                source=SOURCE,
                hint='raise fs.inotify.max_user_instances or fs.inotify.max_user_watches, or set mode = "poll"',
                code="watcher_polls",
            )
        )
