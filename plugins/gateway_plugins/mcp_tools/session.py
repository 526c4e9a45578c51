"""One session with a server, held by one task of its own, which opens it, listens for changes, and closes it.

It makes no other when it is lost; `link.py` does. Nothing here knows what a session is used for.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

from attrs import frozen
from mcp import Client
from mcp.client.session import MessageHandlerFnT
from mcp.client.subscriptions import ListenNotSupportedError
from mcp_types import ToolListChangedNotification

from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 6.0
_LISTEN_AGAIN_SECONDS = 30.0


@frozen
class Limits:
    """How long things may take, in seconds."""

    connect: float
    """For a session to be opened, and for a call to wait for one."""
    call: float
    """For one call."""


class Opener(Protocol):
    """Opens a session."""

    def __call__(
        self, *, on_message: MessageHandlerFnT, on_end: Callable[[], None]
    ) -> AbstractAsyncContextManager[Client]:
        """See `transports.open_session`."""


class Session:
    """One session, and the task that holds it."""

    def __init__(self, opener: Opener, limits: Limits, on_change: Callable[[], None]) -> None:
        self._opener = opener
        self._limits = limits
        self._on_change = on_change
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(look_at)
        self.ended = asyncio.Event()
        """Set when it is of no use for further calls."""
        self.given_up = False
        """Whether a call found it of no use, rather than the server having ended it."""
        self.exchange = RequestTrace()
        # Nothing of the run in which it is first needed may stick to it.
        self.task = asyncio.get_running_loop().create_task(self._hold(), context=contextvars.Context())

    @property
    def busy(self) -> bool:
        """Whether a call is on."""
        return self._calls > 0

    async def opened(self) -> None:
        """Wait until it is open.

        Raises:
            Exception: Why it cannot be opened.
        """
        await asyncio.shield(self._opened)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """The client, which stays open at least until the block is left."""
        self._calls += 1
        self._idle.clear()
        try:
            yield self._opened.result()
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self) -> None:
        """Let it go, whatever is on."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=CLOSE_SECONDS)

    async def _hold(self) -> None:
        REQUEST_TRACE.set(self.exchange)
        try:
            async with AsyncExitStack() as held:
                async with asyncio.timeout(self._limits.connect):
                    client = await held.enter_async_context(self._opener(on_message=self._heard, on_end=self.ended.set))
                self._opened.set_result(client)
                listening = asyncio.create_task(self._listen(client))
                try:
                    await self.ended.wait()
                    # Others' calls may still be answered.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._limits.call):
                            await self._idle.wait()
                finally:
                    listening.cancel()
                    await asyncio.wait([listening])
        except Exception as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            logger.debug("an MCP session ended: %s", type(error).__name__)
        finally:
            self.ended.set()
            if not self._opened.done():
                self._opened.cancel()

    async def _heard(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _listen(self, client: Client) -> None:
        """From the revision of 2026-07-28 on, changes are told only to those that ask."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    # What changed before the server began to tell.
                    self._on_change()
                    async for _ in changes:
                        self._on_change()
            except ListenNotSupportedError:
                return
            except Exception as error:
                logger.debug("an MCP server does not tell of changes: %s", type(error).__name__)
            # Whatever ended it may have hidden a change, or be the server's end: listing shows.
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
            self._on_change()


def look_at(future: "asyncio.Future[Any]") -> None:
    """Take an exception for seen, also when nobody waits."""
    if not future.cancelled():
        future.exception()
