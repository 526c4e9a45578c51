"""Reloads changed agents automatically: watches the files that plugins and the gateway read.

It does not interpret the files: `gateway.reload()` determines which agents changed and loads them.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway_core import Catalog, Check, Gateway, Measurement, hookimpl
from gateway_plugins.hot_reload.reloader import Reloader
from gateway_plugins.hot_reload.settings import Settings


class HotReload:
    """The plugin `hot_reload`."""

    Config = Settings
    skip_for = ("check", "chat")

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._settings = config
        self._watched: Sequence[Path] = ()
        self._running = False
        self._reloader: Reloader | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Watch files while the gateway runs."""
        self._running = True
        self._start()
        try:
            yield
        finally:
            self._running, self._reloader = False, None
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    @hookimpl
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Watch the paths of the new catalog."""
        self._watched = watched
        if self._reloader is not None:
            self._reloader.watch(watched)

    @hookimpl
    async def readiness(self) -> Iterable[Check]:
        """Check whether the watcher is alive, if it is enabled."""
        return [Check("watcher", self.describe()["watcher_alive"], needed=False)] if self._reloader is not None else []

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Yield whether the watcher is alive; 1 also if it is disabled."""
        alive = self._reloader is None or self.describe()["watcher_alive"]
        yield Measurement(
            "agent_gateway.watcher.alive", int(alive), "1", "Whether the file watcher is alive (1) or not (0)."
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the state of the watcher."""
        reloader = self._reloader
        if reloader is None:
            return {"mode": "off", "watcher_alive": False}
        mode, reason = reloader.event_source.mode, reloader.event_source.reason
        how = f"polling for changes ({reason})" if mode == "poll" else "watching for changes"
        return {
            "banner": {"reload": f"{how}; edits reload automatically"},
            "mode": mode,
            "reason": reason,
            "watcher_alive": reloader.event_source.alive and bool(self._tasks),
            "watched": [str(path) for path in reloader.paths],
            "reloads": reloader.reloads,
            "restarts": reloader.event_source.restarts,
        }

    def reconfigure(self, config: Settings) -> None:
        """Apply changed settings. A different mode restarts the watcher."""
        before, self._settings = self._settings.mode, config
        if self._reloader is not None and config.mode == before:
            self._reloader.settings = config
            return
        if self._reloader is not None:
            # Not cancelled: it may be in the middle of the reload that changes these settings.
            self._reloader.finish()
            self._reloader = None
        if self._running:
            self._start()

    def _start(self) -> None:
        if self._settings.mode == "off":
            return
        self._reloader = Reloader(self._settings, self._gateway.reload, self._gateway.report)
        self._reloader.watch(self._watched)
        task = asyncio.create_task(self._reloader.run(), name="hot-reload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
