"""Agent memories: SDK sessions stored in one database, one per principal, agent and chat.

The SDK's own SQLite session opens a connection per thread and blocks the calling thread, which does not scale to
thousands of chats on one event loop.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from gateway_core import Database

if TYPE_CHECKING:
    from agents import TResponseInputItem

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
"""


class Memory:
    """An SDK `Session`: the memory of one agent for one principal's chat.

    Args:
        database: A database with the tables of `SCHEMA`.
        principal_id: Id of the principal that owns the chat.
        agent_id: Id of the agent that owns the memory.
        chat: The client's id of the chat.
        history: Maximum number of items that `get_items` returns, the newest ones; 0 means no limit.
        keep: Seconds after which an unused memory is deleted; 0 means never.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        principal_id: str,
        agent_id: str,
        chat: str,
        *,
        history: int = 0,
        keep: float = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from agents.memory.session_settings import SessionSettings

        self.session_id = chat
        self.session_settings: SessionSettings | None = SessionSettings(limit=history or None)
        self._database = database
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

        return _whole_turns(await self._database.run(get))

    async def add_items(self, items: "list[TResponseInputItem]") -> None:
        """Adds items, and deletes some expired memories."""
        rows = [orjson.dumps(item) for item in items]
        now = self._clock()

        def add(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT INTO memories (principal, agent, chat, used) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET used = excluded.used",
                (*self._names, now),
            )
            memory = self._id(database)
            database.executemany("INSERT INTO items (memory, item) VALUES (?, ?)", [(memory, row) for row in rows])
            if self._keep:
                _delete_unused(database, now - self._keep)

        await self._database.run(add)

    async def pop_item(self) -> "TResponseInputItem | None":
        """Removes and returns the newest item."""

        def pop(database: sqlite3.Connection) -> Any:
            row = database.execute(
                "DELETE FROM items WHERE number = (SELECT max(number) FROM items WHERE memory = ?) RETURNING item",
                (self._id(database),),
            ).fetchone()
            return orjson.loads(row[0]) if row else None

        item: TResponseInputItem | None = await self._database.run(pop)
        return item

    async def clear_session(self) -> None:
        """Removes all items."""
        delete = "DELETE FROM items WHERE memory = ?"
        await self._database.run(lambda database: database.execute(delete, (self._id(database),)))

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


def _delete_unused(database: sqlite3.Connection, before: float) -> None:
    # Limited per call, because the caller that adds an item waits for it.
    old = [row[0] for row in database.execute("SELECT id FROM memories WHERE used < ? LIMIT 20", (before,))]
    for memory in old:
        database.execute("DELETE FROM items WHERE memory = ?", (memory,))
        database.execute("DELETE FROM memories WHERE id = ?", (memory,))
