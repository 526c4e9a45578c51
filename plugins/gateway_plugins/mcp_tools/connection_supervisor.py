"""Keeps a session with a server there: starts one, starts another when it is lost, and pauses in between.

A server that fails again and again is not waited for. Nothing here knows what a session is used for.
"""

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Callable
from typing import Literal

from gateway_plugins.mcp_tools.failures import UnreachableError, reason
from gateway_plugins.mcp_tools.session import CLOSE_SECONDS, Limits, Opener, Session, look_at

logger = logging.getLogger(__name__)

FAILURES_UNTIL_OPEN = 3
MAX_PAUSE_SECONDS = 30.0
_STABLE_SECONDS = 5.0

State = Literal["idle", "connecting", "up", "down", "closed"]


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1 to 30, spread so that gateways do not knock together."""
    longest = min(MAX_PAUSE_SECONDS, 2.0**failures)
    return random.uniform(longest / 2, longest)  # noqa: S311


class ConnectionSupervisor:
    """A session with a server, over all the sessions that are lost.

    Args:
        name: The server's.
        opener: Opens a session.
        limits: How long things may take.
        on_up: Called when there is a session.
        on_change: Called when the server says that its tools have changed.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        limits: Limits,
        *,
        on_up: Callable[[], None] = lambda: None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._opener = opener
        self._limits = limits
        self._on_up = on_up
        self._on_change = on_change
        self._session: Session | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._next: asyncio.Future[Session] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._waiting = 0
        self._failures = 0
        self._short_lives = 0
        self.state: State = "idle"
        self.last_error: str | None = None
        self.sessions = 0
        """How many there have been."""
        self.used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call is on, or waits for a session."""
        return self._waiting > 0 or (self._session is not None and self._session.busy)

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
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.connect):
                while (session := await asyncio.shield(self._next)).ended.is_set():
                    # It ended, and the supervisor has not heard of it yet.
                    self._renew()
                return session
        except TimeoutError:
            raise self._unreachable() from None
        finally:
            self._waiting -= 1

    def lost(self, session: Session) -> None:
        """A call found that a session is of no use any more."""
        session.given_up = True
        session.ended.set()
        if self._session is session:
            self._renew()

    async def close(self) -> None:
        """End all sessions, and start no other."""
        self.state = "closed"
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor], timeout=CLOSE_SECONDS)
        if self._next is not None and not self._next.done():
            self._next.set_exception(self._unreachable())
        for task in [*self._retired]:
            task.cancel()
        if self._retired:
            await asyncio.wait([*self._retired], timeout=CLOSE_SECONDS)

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
                    await asyncio.sleep(pause_after(tries))
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

    def _renew(self) -> None:
        """What was there is over; wait for another."""
        if self._next is not None and self._next.done():
            self._next = _awaited(asyncio.get_running_loop())

    def _settle(self, session: Session) -> None:
        self._renew()
        assert self._next is not None
        self._next.set_result(session)

    def _failed(self, why: str) -> None:
        self._failures += 1
        self.state = "down"
        if why != self.last_error or self._failures == FAILURES_UNTIL_OPEN:
            logger.warning("the MCP server %s cannot be reached: %s", self._name, why)
        self.last_error = why
        if self.is_open and self._next is not None and not self._next.done():
            self._next.set_exception(self._unreachable())
            self._renew()

    def _unreachable(self) -> UnreachableError:
        return UnreachableError(f"The server of this tool, {self._name}, cannot be reached.")


def _awaited(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Session]":
    future: asyncio.Future[Session] = loop.create_future()
    future.add_done_callback(look_at)
    return future
