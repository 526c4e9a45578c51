"""A saved file is a deployed one: watches what plugins and the gateway read, and reloads when it has changed.

It does not know what the files mean, and loads nothing: `gateway.reload()` does, and decides what changed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway_core import Catalog, Check, Gateway, Measurement, hookimpl
from gateway_plugins.hot_reload.reloader import Reloader
from gateway_plugins.hot_reload.settings import Settings


class HotReload:
    """The plugin `hot_reload`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._settings = config
        self._watched: Sequence[Path] = ()
        self._runs = False
        self._follower: Reloader | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @hookimpl
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Watches while the gateway runs."""
        return self._watching()

    @hookimpl
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Learn what to watch."""
        self._watched = watched
        if self._follower is not None:
            self._follower.follow(watched)

    @hookimpl
    async def readiness(self) -> Iterable[Check]:
        """Whether changes of files are noticed, where they should be."""
        return [Check("watcher", self.describe()["watcher_alive"], needed=False)] if self._follower is not None else []

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Whether the watcher lives; 1 too where it is not wanted."""
        alive = self._follower is None or self.describe()["watcher_alive"]
        yield Measurement("agent_gateway.watcher.alive", int(alive), "1", "Whether changes of files are noticed.")

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How changes are noticed, and whether they are."""
        follower = self._follower
        if follower is None:
            return {"mode": "off", "watcher_alive": False}
        return {
            "mode": follower.listening.mode,
            "reason": follower.listening.reason,
            "watcher_alive": follower.listening.alive and bool(self._tasks),
            "watched": [str(path) for path in follower.paths],
            "reloads": follower.reloads,
            "restarts": follower.listening.restarts,
        }

    def reconfigure(self, config: Settings) -> None:
        """Take other times, or another way to notice changes."""
        before, self._settings = self._settings.mode, config
        if self._follower is not None and config.mode == before:
            self._follower.settings = config
            return
        if self._follower is not None:
            # Not cancelled: it may be what reloads at this moment.
            self._follower.finish()
            self._follower = None
        if self._runs:
            self._start()

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        self._runs = True
        self._start()
        try:
            yield
        finally:
            self._runs, self._follower = False, None
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self) -> None:
        if self._settings.mode == "off":
            return
        self._follower = Reloader(self._settings, self._settings.mode, self._gateway.reload, self._gateway.report)
        self._follower.follow(self._watched)
        task = asyncio.create_task(self._follower.run(), name="hot-reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
