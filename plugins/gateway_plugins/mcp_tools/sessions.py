"""Keeps one session with a server alive: a supervisor starts it, starts another when it is lost, and pauses in between.

Each session is held by one task of its own, which opens and closes it. Nothing here knows what a session is used for.
"""

import asyncio
import contextlib
import contextvars
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Literal, Protocol

from mcp import Client
from mcp.client.session import MessageHandlerFnT
from mcp.client.subscriptions import ListenNotSupportedError
from mcp_types import ToolListChangedNotification

from gateway_plugins.mcp_tools.exchange import EXCHANGE, Exchange
from gateway_plugins.mcp_tools.failures import UnreachableError, reason

logger = logging.getLogger(__name__)

FAILURES_UNTIL_OPEN = 3
MAX_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 5.0
_CLOSE_SECONDS = 6.0

State = Literal["idle", "connecting", "up", "down", "closed"]


class Opener(Protocol):
    """Opens a session."""

    def __call__(
        self, *, on_message: MessageHandlerFnT, on_end: Callable[[], None]
    ) -> AbstractAsyncContextManager[Client]:
        """See `transports.open_session`."""


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1 to 30, spread so that gateways do not knock together."""
    longest = min(MAX_PAUSE_SECONDS, 2.0**failures)
    return random.uniform(longest / 2, longest)  # noqa: S311


class Session:
    """One session, and the task that holds it."""

    def __init__(self, opener: Opener, limits: "Limits", on_change: Callable[[], None]) -> None:
        self._opener = opener
        self._limits = limits
        self._on_change = on_change
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(_look_at)
        self.ended = asyncio.Event()
        """Set when it is of no use for further calls."""
        self.given_up = False
        """Whether a call found it of no use, rather than the server having ended it."""
        self.exchange = Exchange()
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
        await asyncio.wait([self.task], timeout=_CLOSE_SECONDS)

    async def _hold(self) -> None:
        EXCHANGE.set(self.exchange)
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
            await asyncio.sleep(MAX_PAUSE_SECONDS)
            self._on_change()


class Limits(Protocol):
    """Seconds."""

    @property
    def connect(self) -> float:
        """For a session to be opened, and for a call to wait for one."""

    @property
    def call(self) -> float:
        """For one call."""


class Link:
    """A session with a server, over all the sessions that are lost.

    Args:
        name: The server's.
        opener: Opens a session.
        limits: How long things may take.
        on_up: Called when there is a session.
        on_change: Called when the server says that its tools have changed.
        pause: Seconds to wait after so many failures in a row.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        limits: Limits,
        *,
        on_up: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
        pause: Callable[[int], float] = pause_after,
    ) -> None:
        self._name = name
        self._opener = opener
        self._limits = limits
        self._on_up = on_up
        self._on_change = on_change
        self._pause = pause
        self._session: Session | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._next: asyncio.Future[Session] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._failures = 0
        self._short_lives = 0
        self.state: State = "idle"
        self.last_error: str | None = None
        self.sessions = 0
        """How many there have been."""
        self.used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call is on."""
        return self._session is not None and self._session.busy

    @property
    def is_open(self) -> bool:
        """Whether calls fail at once, because the server failed too often in a row."""
        return self._failures >= FAILURES_UNTIL_OPEN

    def start(self) -> None:
        """Begin to connect, if that has not begun."""
        if self._supervisor is None and self.state != "closed":
            loop = asyncio.get_running_loop()
            self._next = _awaited(loop)
            self._supervisor = loop.create_task(self._supervise(), context=contextvars.Context())

    async def session(self) -> Session:
        """The session there is, or the next one.

        Raises:
            UnreachableError: There is none within its time, or the server failed too often in a row.
        """
        self.used = time.monotonic()
        self.start()
        if self._next is None or (self.is_open and not self._next.done()):
            raise self._unreachable()
        try:
            async with asyncio.timeout(self._limits.connect):
                return await asyncio.shield(self._next)
        except TimeoutError:
            raise self._unreachable() from None

    def lost(self, session: Session) -> None:
        """A call found that a session is of no use any more."""
        session.given_up = True
        session.ended.set()
        if self._session is session and self._next is not None and self._next.done():
            self._next = _awaited(asyncio.get_running_loop())

    async def close(self) -> None:
        """End all sessions, and start no other."""
        self.state = "closed"
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor], timeout=_CLOSE_SECONDS)
        if self._next is not None and not self._next.done():
            self._next.set_exception(self._unreachable())
        for task in [*self._retired]:
            task.cancel()
        if self._retired:
            await asyncio.wait([*self._retired], timeout=_CLOSE_SECONDS)

    async def _supervise(self) -> None:
        try:
            while True:
                self.state = "connecting"
                session = self._session = Session(self._opener, self._limits, self._on_change)
                self._retired.add(session.task)
                session.task.add_done_callback(self._retired.discard)
                try:
                    await session.opened()
                except Exception as error:
                    self._failed(reason(error, session.exchange))
                else:
                    await self._until_lost(session)
                if tries := self._failures or self._short_lives:
                    await asyncio.sleep(self._pause(tries))
        finally:
            if self._session is not None:
                await self._session.close()

    async def _until_lost(self, session: Session) -> None:
        since = time.monotonic()
        self.sessions += 1
        self._failures = 0
        self.state = "up"
        self.last_error = None
        self._settle(session)
        self._on_up()
        await session.ended.wait()
        # A server that takes connections and drops them is not to be asked in a circle.
        settled = session.given_up or time.monotonic() - since >= _STABLE_SECONDS
        self._short_lives = 0 if settled else self._short_lives + 1
        self.lost(session)
        self.state = "down"
        self.last_error = "it ended the connection"
        logger.info("the session with the MCP server %s is lost, and is made again", self._name)

    def _settle(self, session: Session) -> None:
        assert self._next is not None
        if self._next.done():
            self._next = _awaited(asyncio.get_running_loop())
        self._next.set_result(session)

    def _failed(self, why: str) -> None:
        self._failures += 1
        self.state = "down"
        if why != self.last_error or self._failures == FAILURES_UNTIL_OPEN:
            logger.warning("the MCP server %s cannot be reached: %s", self._name, why)
        self.last_error = why
        if self.is_open and self._next is not None and not self._next.done():
            self._next.set_exception(self._unreachable())
            self._next = _awaited(asyncio.get_running_loop())

    def _unreachable(self) -> UnreachableError:
        return UnreachableError(f"The server of this tool, {self._name}, cannot be reached.")


def _awaited(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Session]":
    future: asyncio.Future[Session] = loop.create_future()
    future.add_done_callback(_look_at)
    return future


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Take an exception for seen, also when nobody waits."""
    if not future.cancelled():
        future.exception()
