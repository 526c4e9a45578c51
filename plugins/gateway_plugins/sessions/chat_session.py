"""Agent memories: SDK sessions stored in one database, one per principal, agent and chat.

The SDK's own SQLite session opens a connection per thread and blocks the calling thread, which does not scale to
thousands of chats on one event loop.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from gateway_core import GatewayError
from gateway_plugins.sessions.store import Quota, Store

if TYPE_CHECKING:
    from agents import TResponseInputItem

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS memories (
    id INTEGER PRIMARY KEY, principal TEXT NOT NULL, agent TEXT NOT NULL, chat TEXT NOT NULL, used REAL NOT NULL,
    UNIQUE (principal, agent, chat)
);
CREATE INDEX IF NOT EXISTS memories_by_use ON memories (used);
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY AUTOINCREMENT, memory INTEGER NOT NULL, item BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS items_by_memory ON items (memory, number);
CREATE INDEX IF NOT EXISTS memories_by_owner ON memories (principal, used);
CREATE TRIGGER IF NOT EXISTS memory_deleted AFTER DELETE ON memories BEGIN
    DELETE FROM items WHERE memory = old.id;
END;
"""
MEASURE = "SELECT sum(length(item)) FROM memories JOIN items ON memory = memories.id WHERE principal = ?"
DELETE_OLDEST = "DELETE FROM memories WHERE id = (SELECT id FROM memories WHERE principal = ? ORDER BY used LIMIT 1)"


class Memory:
    """An SDK `Session`: the memory of one agent for one principal's chat.

    Args:
        store: A database with the tables of `SCHEMA`.
        quota: Limits the size of all memories of a principal.
        principal_id: Id of the principal that owns the chat.
        agent_id: Id of the agent that owns the memory.
        chat: The client's id of the chat.
        history: Maximum number of items that `get_items` returns, the newest ones; 0 means no limit.
        keep: Seconds after which an unused memory is deleted; 0 means never.
        max_bytes: Maximum size of the memory; its oldest items are deleted first.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        quota: Quota,
        principal_id: str,
        agent_id: str,
        chat: str,
        *,
        history: int = 0,
        keep: float = 0,
        max_bytes: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from agents.memory.session_settings import SessionSettings

        self.session_id = chat
        self.session_settings: SessionSettings | None = SessionSettings(limit=history or None)
        self._store = store
        self._quota = quota
        self._max_bytes = max_bytes
        self._names = (principal_id, agent_id, chat)
        self._history = history or None
        self._keep = keep
        self._clock = clock

    async def get_items(self, limit: int | None = None) -> "list[TResponseInputItem]":
        """Returns the newest `limit` items, oldest first, from the first user message among them."""
        maximum = limit if limit is not None else self._history

        def get(database: sqlite3.Connection) -> list[Any]:
            rows = database.execute(
                "SELECT item FROM items WHERE memory = ? ORDER BY number DESC LIMIT ?",
                (self._id(database), -1 if maximum is None else maximum),
            )
            return [orjson.loads(row[0]) for row in rows][::-1]

        return _whole_turns(await self._store.read(get))

    async def add_items(self, items: "list[TResponseInputItem]") -> None:
        """Adds items, and deletes some expired memories.

        If the database cannot be written, the items are lost, but the answer is not: the failure is only reported.
        """
        rows = _newest([orjson.dumps(item) for item in items], self._max_bytes)
        now = self._clock()

        def add(database: sqlite3.Connection) -> None:
            # Before the memory itself is inserted: this may delete other memories, and this one if it is the oldest.
            self._quota.reserve(database, self._names[0], sum(map(len, rows)))
            database.execute(
                "INSERT INTO memories (principal, agent, chat, used) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET used = excluded.used",
                (*self._names, now),
            )
            memory = self._id(database)
            database.executemany("INSERT INTO items (memory, item) VALUES (?, ?)", [(memory, row) for row in rows])
            deleted = _delete_beyond(database, memory, self._max_bytes)
            if self._keep:
                deleted += _delete_unused(database, now - self._keep)
            if deleted:
                self._quota.forget()

        try:
            await self._store.write(add)
        except GatewayError:
            self._quota.forget(self._names[0])
            logger.warning("the memory of a chat could not be stored", exc_info=True)

    async def pop_item(self) -> "TResponseInputItem | None":
        """Removes and returns the newest item."""

        def pop(database: sqlite3.Connection) -> Any:
            row = database.execute(
                "DELETE FROM items WHERE number = (SELECT max(number) FROM items WHERE memory = ?) RETURNING item",
                (self._id(database),),
            ).fetchone()
            return orjson.loads(row[0]) if row else None

        item: TResponseInputItem | None = await self._store.write(pop)
        return item

    async def clear_session(self) -> None:
        """Removes all items."""
        delete = "DELETE FROM items WHERE memory = ?"
        await self._store.write(lambda database: database.execute(delete, (self._id(database),)))

    def _id(self, database: sqlite3.Connection) -> int | None:
        row: tuple[int] | None = database.execute(
            "SELECT id FROM memories WHERE principal = ? AND agent = ? AND chat = ?", self._names
        ).fetchone()
        return row[0] if row else None


def _whole_turns(items: Sequence[Any]) -> list[Any]:
    """Removes a partial turn at the start: upstreams reject a tool output without its call."""
    start = next((index for index, item in enumerate(items) if item.get("role") == "user"), None)
    if start is not None:
        return [*items[start:]]
    # The newest turn alone exceeds the limit.
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    return [item for item in items if item.get("type") != "function_call_output" or item.get("call_id") in calls]


def _delete_unused(database: sqlite3.Connection, before: float) -> int:
    # Limited per call, because the caller that adds an item waits for it.
    delete = "DELETE FROM memories WHERE id IN (SELECT id FROM memories WHERE used < ? LIMIT 20)"
    return database.execute(delete, (before,)).rowcount


def _delete_beyond(database: sqlite3.Connection, memory: int | None, max_bytes: int) -> int:
    """Deletes the oldest items of a memory beyond its maximum size. Returns their number."""
    sizes = database.execute("SELECT number, length(item) FROM items WHERE memory = ? ORDER BY number DESC", (memory,))
    total = 0
    for number, size in sizes:
        total += size
        if total > max_bytes:
            return database.execute("DELETE FROM items WHERE memory = ? AND number <= ?", (memory, number)).rowcount
    return 0


def _newest(rows: list[bytes], max_bytes: int) -> list[bytes]:
    total = 0
    for index in range(len(rows) - 1, -1, -1):
        total += len(rows[index])
        if total > max_bytes:
            return rows[index + 1 :]
    return rows
