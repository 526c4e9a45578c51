"""Remembers the last failures of every stage, for operators to look up: by agent, by stage, by a request's id.

It keeps no prompt, argument or value: of an exception only its type and its places. What repeats is counted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import frozen
from starlette.routing import BaseRoute

from gateway_core import Gateway, GatewayError, hookimpl
from gateway_plugins.error_recorder.ring import ErrorRing
from gateway_plugins.error_recorder.routes import error_routes
from gateway_plugins.error_recorder.storage import load, save

FILE = "errors.json"
SAVE_SECONDS = 1.0
"""What happened within this time before a sudden death is lost."""


@frozen
class Settings:
    """`[plugins.error_recorder]`."""

    capacity: int = 500
    """How many different failures are remembered; the one that was seen longest ago is forgotten first."""


class ErrorRecorder:
    """The plugin `error_recorder`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._ring = ErrorRing(config.capacity)
        self._changed = asyncio.Event()

    def reconfigure(self, config: Settings) -> None:
        """Take another capacity; the newest failures that fit into it are kept."""
        self._ring.resize(config.capacity)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Remember what was kept on disk, and keep it there, when the gateway has a state folder."""
        folder = self._gateway.state_folder(create=False)
        if folder is None:
            yield
            return
        self._ring.restore(load(folder / FILE))
        stopped = asyncio.Event()

        async def keep() -> None:
            while not stopped.is_set():
                await self._changed.wait()
                await asyncio.to_thread(self._save)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), SAVE_SECONDS)

        keeper = asyncio.create_task(keep())
        try:
            yield
        finally:
            stopped.set()
            if not self._changed.is_set():
                keeper.cancel()
            await asyncio.wait([keeper])
            if self._changed.is_set():  # what failed while the keeper was at it
                self._save()

    def _save(self) -> None:
        self._changed.clear()
        folder = self._gateway.state_folder()
        if folder is not None:
            save(folder / FILE, self._ring.entries())

    @hookimpl
    def on_error(self, error: GatewayError) -> None:
        """Remember it."""
        self._ring.add(error)
        self._changed.set()

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """`/admin/agents/errors`."""
        return error_routes(self._ring, self._changed.set)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How many there were, and how many different ones are remembered."""
        return {"total": self._ring.total, "remembered": len(self._ring), "capacity": self._ring.capacity}
