"""Keeps a server connected: opens a session, and opens a new one with backoff when it is lost.

Calls do not wait for a server that fails repeatedly. This module does not depend on what a session is used for.
"""

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Callable
from typing import Literal

from gateway_plugins.mcp_tools.error_mapping import UnreachableError, reason
from gateway_plugins.mcp_tools.session import CLOSE_SECONDS, Opener, Session, consume_exception
from gateway_plugins.mcp_tools.settings import McpServer

logger = logging.getLogger(__name__)

FAILURES_UNTIL_OPEN = 3
MAX_BACKOFF_SECONDS = 30.0
_STABLE_SECONDS = 5.0

State = Literal["idle", "connecting", "up", "down", "closed"]


def backoff_after(failures: int) -> float:
    """Return the backoff in seconds after consecutive failures: 1 to 30, with jitter so that gateways spread out."""
    longest = min(MAX_BACKOFF_SECONDS, 2.0**failures)
    return random.uniform(longest / 2, longest)  # noqa: S311


class ConnectionSupervisor:
    """Holds the current session with a server, and replaces it when it is lost.

    Args:
        name: Name of the server.
        opener: Opens a session.
        settings: Settings of the server: the timeouts.
        on_change: Called when the tools may have changed: a session has been opened, or the server reports a change.
        on_failure: Called with a new reason for which no session can be opened.
    """

    def __init__(
        self,
        name: str,
        opener: Opener,
        settings: McpServer,
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._name = name
        self._opener = opener
        self._settings = settings
        self._on_change = on_change
        self._on_failure = on_failure
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
        """Number of sessions opened so far."""
        self.used = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or waits for a session."""
        return self._waiting > 0 or (self._session is not None and self._session.busy)

    @property
    def is_open(self) -> bool:
        """Whether calls fail immediately, because of too many consecutive failures."""
        return self._failures >= FAILURES_UNTIL_OPEN

    def start(self) -> None:
        """Start connecting, unless already started or closed."""
        if self._supervisor is None and self.state != "closed":
            loop = asyncio.get_running_loop()
            self._next = _new_future(loop)
            self._supervisor = loop.create_task(self._supervise(), context=contextvars.Context())

    async def session(self) -> Session:
        """Return the current session, or wait for the next one.

        Raises:
            UnreachableError: No session was opened in time, or the server failed too often in a row.
        """
        self.used = time.monotonic()
        self.start()
        if self._next is None or (self.is_open and not self._next.done()):
            raise self._unreachable()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while (session := await asyncio.shield(self._next)).ended.is_set():
                    # It ended, and the supervisor has not noticed yet.
                    self._renew()
                return session
        except TimeoutError:
            raise self._unreachable() from None
        finally:
            self._waiting -= 1

    def lost(self, session: Session) -> None:
        """Discard a session that a call found unusable."""
        session.discarded = True
        session.ended.set()
        if self._session is session:
            self._renew()

    async def close(self) -> None:
        """Close all sessions, and open no more."""
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
                session = self._session = Session(self._opener, self._settings, self._on_change)
                self._retired.add(session.task)
                session.task.add_done_callback(self._retired.discard)
                try:
                    await session.opened()
                except Exception as error:
                    self._failed(reason(error, session.trace) + _stderr(session))
                else:
                    await self._until_lost(session)
                if tries := self._failures or self._short_lives:
                    await asyncio.sleep(backoff_after(tries))
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
        self._on_change()
        await session.ended.wait()
        # A server that accepts connections and drops them gets the backoff, too.
        settled = session.discarded or time.monotonic() - since >= _STABLE_SECONDS
        self._short_lives = 0 if settled else self._short_lives + 1
        self.lost(session)
        self.state = "down"
        self.last_error = f"the connection was lost{_stderr(session)}"
        logger.info("lost the session with MCP server %s; reconnecting", self._name)

    def _renew(self) -> None:
        """Replace the completed future, so that callers wait for the next session."""
        if self._next is not None and self._next.done():
            self._next = _new_future(asyncio.get_running_loop())

    def _settle(self, session: Session) -> None:
        self._renew()
        assert self._next is not None
        self._next.set_result(session)

    def _failed(self, why: str) -> None:
        self._failures += 1
        self.state = "down"
        if why != self.last_error or self._failures == FAILURES_UNTIL_OPEN:
            self._on_failure(why)
        self.last_error = why
        if self.is_open and self._next is not None and not self._next.done():
            self._next.set_exception(self._unreachable())
            self._renew()

    def _unreachable(self) -> UnreachableError:
        return UnreachableError(f"The MCP server {self._name} is unreachable.")


def _stderr(session: Session) -> str:
    return str(session.trace.stderr or "")


def _new_future(loop: asyncio.AbstractEventLoop) -> "asyncio.Future[Session]":
    future: asyncio.Future[Session] = loop.create_future()
    future.add_done_callback(consume_exception)
    return future
