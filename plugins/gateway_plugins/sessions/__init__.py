"""Stores chat data: responses and other records, and the memory of agents that enable it.

The data is in a SQLite database in the state directory, or in memory if there is no state directory. The plugin does
not authorize access: every record has an owner, and callers pass the owner.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core import AgentEntry, Database, Gateway, RecordStore, RunContext, Seconds, hookimpl
from gateway_plugins.sessions import chat_session, records
from gateway_plugins.sessions.records import SqliteRecords

if TYPE_CHECKING:
    from agents.memory import Session

FILE = "sessions.db"


@frozen
class Settings:
    """`[plugins.sessions]`."""

    history: int = 200
    """Maximum number of items that an agent with a memory receives, the newest ones; 0 means no limit."""
    keep_memories: Seconds = Seconds(90 * 86400.0)
    """Time after which an unused memory is deleted; 0 means never."""


class Sessions:
    """The plugin `sessions`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._config = config
        self._database = Database(self._file, records.SCHEMA + chat_session.SCHEMA)
        self._records = SqliteRecords(self._database)

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
            await self._database.close()

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
            self._database,
            run.principal.id,
            entry.id,
            run.session_id,
            history=self._config.history,
            keep=self._config.keep_memories,
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the storage location."""
        folder = self._gateway.state_folder(create=False)
        return {"kept_in": str(folder / FILE) if folder else "memory"}
