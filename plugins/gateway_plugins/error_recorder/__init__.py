"""Records recent errors of every stage, so that operators can look them up by agent, stage or request id.

It stores the type and stack of an exception, but no prompts, arguments or values. Repeated errors are counted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from starlette.routing import BaseRoute

from gateway_core import Count, Gateway, GatewayError, hookimpl
from gateway_plugins.error_recorder.ring_buffer import ErrorRing
from gateway_plugins.error_recorder.routes import error_routes
from gateway_plugins.error_recorder.storage import load, save

FILE = "errors.json"
SAVE_SECONDS = 1.0
"""Minimum interval between saves; a crash loses the errors since the last save."""


@frozen
class Settings:
    """`[plugins.error_recorder]`."""

    capacity: Count = Count(500)
    """Maximum number of distinct errors; the least recently seen error is removed first."""


class ErrorRecorder:
    """The plugin `error_recorder`."""

    Config = Settings
    skip_for = ("check",)

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._ring = ErrorRing(config.capacity)
        self._changed = asyncio.Event()

    def reconfigure(self, config: Settings) -> None:
        """Applies a new capacity, and keeps the most recent errors."""
        self._ring.resize(config.capacity)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Loads the saved errors, and saves changes, if the gateway has a state directory."""
        folder = self._gateway.state_folder(create=False)
        if folder is None:
            yield
            return
        self._ring.restore(load(folder / FILE))
        stopped = asyncio.Event()

        async def save_changes() -> None:
            while not stopped.is_set():
                await self._changed.wait()
                await asyncio.to_thread(self._save)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), SAVE_SECONDS)

        saver = asyncio.create_task(save_changes())
        try:
            yield
        finally:
            stopped.set()
            if not self._changed.is_set():
                saver.cancel()
            await asyncio.wait([saver])
            if self._changed.is_set():  # errors recorded during the last save
                self._save()

    def _save(self) -> None:
        self._changed.clear()
        folder = self._gateway.state_folder()
        if folder is not None:
            save(folder / FILE, self._ring.entries())

    @hookimpl
    def on_error(self, error: GatewayError) -> None:
        """Records an error."""
        self._ring.add(error)
        self._changed.set()

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """Adds `/admin/agents/errors`."""
        return error_routes(self._ring, self._changed.set)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the total number of errors, and the number of distinct errors that are stored."""
        return {"total": self._ring.total, "remembered": len(self._ring), "capacity": self._ring.capacity}
