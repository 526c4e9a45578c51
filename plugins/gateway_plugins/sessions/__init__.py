"""Stores chat data: responses and other records, and the memory of agents that enable it.

The data is in a SQLite database in the state directory, or in memory if there is no state directory. The plugin does
not authorize access: every record has an owner, and callers pass the owner.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core import AgentEntry, Amount, Check, Gateway, RecordStore, RunContext, Seconds, Size, hookimpl
from gateway_plugins.sessions import chat_session, records
from gateway_plugins.sessions.records import SqliteRecords
from gateway_plugins.sessions.store import Quota, Store

if TYPE_CHECKING:
    from agents.memory import Session

FILE = "sessions.db"


@frozen
class Settings:
    """`[plugins.sessions]`."""

    history: Amount = Amount(200)
    """Maximum number of items that an agent with a memory receives, the newest ones; 0 means no limit."""
    keep_memories: Seconds = Seconds(90 * 86400.0)
    """Time after which an unused memory is deleted; 0 means never."""
    max_memory: Size = Size(16 * 1024 * 1024)
    """Maximum size of one memory; its oldest items are deleted first."""
    max_stored: Size = Size(256 * 1024 * 1024)
    """Maximum size of the responses and approvals of one principal, and of its memories; the oldest are deleted."""


class Sessions:
    """The plugin `sessions`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._config = config
        self._store = Store(gateway, self._file, records.SCHEMA + chat_session.SCHEMA, records.upgrade)
        self._records = SqliteRecords(self._store, self._max_stored)
        self._memory_quota = Quota(self._max_stored, chat_session.MEASURE, chat_session.DELETE_OLDEST)

    def _max_stored(self) -> int:
        return self._config.max_stored

    def reconfigure(self, config: Settings) -> None:
        """Applies new settings to subsequent runs."""
        self._config = config

    def _file(self) -> Path | None:
        folder = self._gateway.state_folder()
        return folder / FILE if folder else None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Closes the database on shutdown."""
        try:
            yield
        finally:
            await self._store.close()

    @hookimpl
    def record_store(self) -> RecordStore:
        """Returns the record store."""
        return self._records

    @hookimpl
    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """Returns the agent's memory of the principal's chat, or `None` if the request has no session id."""
        if run.session_id is None:
            return None
        return chat_session.Memory(
            self._store,
            self._memory_quota,
            run.principal.id,
            entry.id,
            run.session_id,
            history=self._config.history,
            keep=self._config.keep_memories,
            max_bytes=self._config.max_memory,
        )

    @hookimpl
    async def readiness(self) -> Iterable[Check]:
        """Reports a failure of the last operation. It is not required: answers are then sent without being stored."""
        return [Check("sessions", ok=False, needed=False)] if self._store.failing else []

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the storage location."""
        folder = self._gateway.state_folder(create=False)
        return {"kept_in": str(folder / FILE) if folder else "memory"}
