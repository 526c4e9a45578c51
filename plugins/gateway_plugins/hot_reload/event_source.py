"""Keeps the system's events coming: starts them, sees each second whether they still can, and starts them again.

Where the system has none to give, or they do not arrive, it says so, and whoever asks looks again and again instead. It
does not know what a change means.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from gateway_core import GatewayError, PluginError
from gateway_plugins.hot_reload.watch_targets import WatchTarget, places, silent_file_system

if TYPE_CHECKING:
    from gateway_plugins.hot_reload.watchdog_source import WatchdogSource

logger = logging.getLogger(__name__)

T = TypeVar("T")

SOURCE = "plugin hot_reload"
# Events can be lost now and then; that none came for so many changes in a row means that they do not arrive here.
_UNHEARD = 2


class Listening:
    """The events of some paths, as long as they can be had.

    Args:
        mode: `auto`, or what the operator decided.
        wake: Set for each change.
        report: Told when the watcher had to be started again, or polling begins.
        executor: Where to do what blocks.
    """

    def __init__(
        self,
        mode: Literal["auto", "inotify", "poll"],
        wake: asyncio.Event,
        report: Callable[[GatewayError], None],
        executor: Executor,
    ) -> None:
        self._mode = mode
        self._wake = wake
        self._report = report
        self._executor = executor
        self._places: frozenset[WatchTarget] = frozenset()
        self._events: WatchdogSource | None = None
        self._unheard = 0
        self.polling = mode == "poll"
        self.reason = "set so" if mode != "auto" else ""
        self.restarts = 0

    @property
    def mode(self) -> str:
        """How changes are noticed: `inotify`, `poll`, or `starting` before it is known."""
        return "poll" if self.polling else "inotify" if self._events is not None else "starting"

    @property
    def alive(self) -> bool:
        """Whether changes are noticed: every thread lives, or none is needed."""
        return self.polling or (self._events is not None and self._events.alive)

    async def keep(self, paths: Sequence[Path]) -> bool:
        """See to it that these paths are listened to. Returns whether anything had to be started for it."""
        if self.polling:
            return False
        wanted = await self._call(lambda: places(paths))
        if wanted == self._places and self.alive:
            return False
        if self._events is not None and self._events.died:
            self.restarts += 1
            self._report(
                PluginError("a thread of the watcher ended; it was started again", source=SOURCE, code="watcher_died")
            )
        await self.stop()
        await self._start(wanted)
        return True

    def heard(self) -> None:
        """A change was announced by an event."""
        self._unheard = 0

    async def unheard(self) -> None:
        """A look found a change that no event announced."""
        self._unheard += 1
        if self._mode == "auto" and self._unheard >= _UNHEARD:
            await self._poll("changes come without events here")

    async def stop(self) -> None:
        """Stop listening."""
        events, self._events, self._places = self._events, None, frozenset()
        if events is not None:
            await self._call(events.stop)

    async def _start(self, wanted: frozenset[WatchTarget]) -> None:
        silent = silent_file_system(place.folder for place in wanted) if self._mode == "auto" else None
        if silent is not None:
            await self._poll(f"a folder is on {silent}, which sends no events")
            return
        try:
            # Here, because it takes a moment, and polling needs none of it.
            from gateway_plugins.hot_reload.watchdog_source import WatchdogSource

            # Known before it has started, so that it is stopped also when this is cancelled meanwhile.
            self._events = WatchdogSource(wanted, self._wake)
            await self._call(self._events.start)
        except FileNotFoundError:  # a folder went meanwhile: the next second sees what there is
            self._events = None
            return
        except (OSError, ImportError) as error:
            self._events = None
            reason = error.strerror or str(error) if isinstance(error, OSError) else "watchdog is not installed"
            await self._poll(reason)
            return
        self._places = wanted
        if self._mode == "auto":
            self.reason = "the system's events arrive"

    async def _poll(self, reason: str) -> None:
        await self.stop()
        self.polling, self.reason = True, reason
        logger.warning("hot reload looks for changes again and again: %s", reason)
        self._report(
            PluginError(
                f"the system's events cannot be used ({reason}); changes are looked for again and again",
                source=SOURCE,
                hint='raise fs.inotify.max_user_instances or max_user_watches, or set mode = "poll"',
                code="watcher_polls",
            )
        )

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
