"""Keeps what belongs to chats: stored responses and other records, and the memory of agents that ask for one.

SQLite, in the state folder; in memory where there is none. It decides nobody's access: records have owners, and whoever
asks says for whom.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core import AgentEntry, Gateway, RecordStore, RunContext, Seconds, hookimpl
from gateway_plugins.sessions import memory, records
from gateway_plugins.sessions.database import IN_MEMORY, Database
from gateway_plugins.sessions.records import SqliteRecords

if TYPE_CHECKING:
    from agents.memory import Session

FILE = "sessions.db"


@frozen
class Settings:
    """`[plugins.sessions]`."""

    history: int = 200
    """How many items of a chat an agent with a memory is told at most, the newest ones; 0 for all."""
    keep_memories: Seconds = Seconds(90 * 86400.0)
    """How long a memory is kept that nobody uses; 0 for ever."""


class Sessions:
    """The plugin `sessions`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._config = config
        self._database = Database(self._file, records.SCHEMA + memory.SCHEMA)
        self._records = SqliteRecords(self._database)

    def reconfigure(self, config: Settings) -> None:
        """Take other settings for runs that begin from now on."""
        self._config = config

    def _file(self) -> str:
        folder = self._gateway.state_folder()
        return IN_MEMORY if folder is None else str(folder / FILE)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Let go of the file at the end."""
        try:
            yield
        finally:
            await self._database.close()

    @hookimpl
    def record_store(self) -> RecordStore:
        """The store."""
        return self._records

    @hookimpl
    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """The memory of one agent for one principal's chat."""
        if run.session_id is None:
            return None
        return memory.Memory(
            self._database,
            run.principal.id,
            entry.id,
            run.session_id,
            history=self._config.history,
            keep=self._config.keep_memories,
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Where things are kept."""
        folder = self._gateway.state_folder(create=False)
        return {"kept_in": str(folder / FILE) if folder else "memory"}
