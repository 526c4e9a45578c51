"""A saved file is a deployed one: watches what plugins and the gateway read, and reloads when it has changed.

It does not know what the files mean, and loads nothing: `gateway.reload()` does, and decides what changed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway_core import Catalog, ConfigError, Gateway, hookimpl
from gateway_plugins.hot_reload.following import Follower
from gateway_plugins.hot_reload.settings import Settings


class HotReload:
    """The plugin `hot_reload`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._settings = config
        self._follower: Follower | None = None
        self._task: asyncio.Task[None] | None = None

    @hookimpl
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Watches while the gateway runs."""
        return self._watching()

    @hookimpl
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Learn what to watch."""
        if self._follower is not None:
            self._follower.follow(watched)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How changes are noticed, and whether they are."""
        follower, task = self._follower, self._task
        if follower is None or task is None:
            return {"mode": "off", "watcher_alive": False}
        return {
            "mode": follower.listening.mode,
            "reason": follower.listening.reason,
            "watcher_alive": follower.listening.alive and not task.done(),
            "watched": [str(path) for path in follower.paths],
            "reloads": follower.reloads,
            "restarts": follower.listening.restarts,
        }

    def reconfigure(self, config: Settings) -> None:
        """Take new times into use.

        Raises:
            ConfigError: The mode is another one, which takes effect at a restart.
        """
        if config.mode != self._settings.mode:
            raise ConfigError("another mode takes effect at a restart", source="[plugins.hot_reload] mode")
        self._settings = config
        if self._follower is not None:
            self._follower.settings = config

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        mode = self._settings.mode
        if mode == "off":
            yield
            return
        self._follower = Follower(self._settings, mode, self._gateway.reload, self._gateway.report)
        self._task = asyncio.create_task(self._follower.run(), name="hot-reload")
        try:
            yield
        finally:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._follower = self._task = None
