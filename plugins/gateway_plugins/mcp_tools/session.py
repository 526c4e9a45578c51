"""Holds one session with a server in its own task, which opens it, listens for tool changes, and closes it.

`connection_supervisor.py` replaces lost sessions. This module does not depend on what a session is used for.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.session import MessageHandlerFnT
from mcp.client.subscriptions import ListenNotSupportedError
from mcp_types import ToolListChangedNotification

from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace
from gateway_plugins.mcp_tools.settings import McpServer

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 6.0
_RESUBSCRIBE_SECONDS = 30.0


Opener = Callable[[MessageHandlerFnT, Callable[[], None]], AbstractAsyncContextManager[Client]]
"""Opens a session, like `transports.open_session`: its arguments are `on_message` and `on_end`."""


class Session:
    """One session, and the task that holds it."""

    def __init__(self, opener: Opener, settings: McpServer, on_change: Callable[[], None]) -> None:
        self._opener = opener
        self._settings = settings
        self._on_change = on_change
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(consume_exception)
        self.ended = asyncio.Event()
        """Set when the session accepts no further calls."""
        self.discarded = False
        """Whether a call found the session unusable, as opposed to the server closing it."""
        self.trace = RequestTrace()
        # An empty context: the session must not inherit context variables of the run that first needs it.
        self.task = asyncio.get_running_loop().create_task(self._hold(), context=contextvars.Context())

    @property
    def busy(self) -> bool:
        """Whether a call is in flight."""
        return self._calls > 0

    async def opened(self) -> None:
        """Wait until the session is open.

        Raises:
            Exception: The session could not be opened.
        """
        await asyncio.shield(self._opened)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """Yield the client, which stays open until the block exits."""
        self._calls += 1
        self._idle.clear()
        try:
            yield self._opened.result()
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def close(self) -> None:
        """Close the session, even if calls are in flight."""
        self.task.cancel()
        await asyncio.wait([self.task], timeout=CLOSE_SECONDS)

    async def _hold(self) -> None:
        REQUEST_TRACE.set(self.trace)
        try:
            async with AsyncExitStack() as held:
                async with asyncio.timeout(self._settings.connect_timeout):
                    client = await held.enter_async_context(self._opener(self._on_message, self.ended.set))
                self._opened.set_result(client)
                listening = asyncio.create_task(self._listen(client))
                try:
                    await self.ended.wait()
                    # Calls in flight may still get a result.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._settings.timeout):
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

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _listen(self, client: Client) -> None:
        """Subscribe to tool changes. Since protocol revision 2026-07-28, servers notify only subscribers."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    # The tools may have changed before the subscription started.
                    self._on_change()
                    async for _ in changes:
                        self._on_change()
            except ListenNotSupportedError:
                return
            except Exception as error:
                logger.debug("subscription to MCP tool changes failed: %s", type(error).__name__)
                # A change may have been missed, or the server may be down: listing the tools shows either.
            await asyncio.sleep(_RESUBSCRIBE_SECONDS)
            self._on_change()


def consume_exception(future: "asyncio.Future[Any]") -> None:
    """Retrieve a future's exception, so that asyncio does not log it as never retrieved."""
    if not future.cancelled():
        future.exception()
