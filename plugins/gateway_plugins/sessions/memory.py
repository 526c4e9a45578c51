"""The memories of agents: SDK sessions, one for each principal, agent and chat, as rows of one database.

The SDK's own SQLite session opens a connection in every thread that uses it, on the thread that makes it; a gateway has
thousands of chats and one loop.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from gateway_plugins.sessions.database import Database

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
    """A `Session` of the SDK: what one agent remembers of one principal's chat.

    Args:
        database: Has the tables of `SCHEMA`.
        principal_id: Whose chat.
        agent_id: Whose memory.
        chat: The client's id of the chat.
        history: How many items the agent is told at most, the newest ones; 0 for all.
        keep: How many seconds a memory is kept that nobody uses; 0 for ever.
        clock: Tells seconds since the epoch.
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
        """What is remembered, oldest first: the newest `limit` items, less what stands before their first question."""
        most = limit if limit is not None else self._history

        def get(database: sqlite3.Connection) -> list[Any]:
            rows = database.execute(
                "SELECT item FROM items WHERE memory = ? ORDER BY number DESC LIMIT ?",
                (self._id(database), -1 if most is None else most),
            )
            return [orjson.loads(row[0]) for row in rows][::-1]

        return _whole_turns(await self._database.do(get))

    async def add_items(self, items: "list[TResponseInputItem]") -> None:
        """Remember more."""
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
                _forget_unused(database, now - self._keep)

        await self._database.do(add)

    async def pop_item(self) -> "TResponseInputItem | None":
        """Forget the newest item, and return it."""

        def pop(database: sqlite3.Connection) -> Any:
            row = database.execute(
                "DELETE FROM items WHERE number = (SELECT max(number) FROM items WHERE memory = ?) RETURNING item",
                (self._id(database),),
            ).fetchone()
            return orjson.loads(row[0]) if row else None

        item: TResponseInputItem | None = await self._database.do(pop)
        return item

    async def clear_session(self) -> None:
        """Forget all."""

        def clear(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM items WHERE memory = ?", (self._id(database),))

        await self._database.do(clear)

    def _id(self, database: sqlite3.Connection) -> int | None:
        row: tuple[int] | None = database.execute(
            "SELECT id FROM memories WHERE principal = ? AND agent = ? AND chat = ?", self._names
        ).fetchone()
        return row[0] if row else None


def _whole_turns(items: Sequence[Any]) -> list[Any]:
    """A limit cuts anywhere: an upstream refuses a tool's output without its call."""
    start = next((index for index, item in enumerate(items) if item.get("role") == "user"), None)
    if start is not None:
        return [*items[start:]]
    # The newest turn alone is longer than the limit.
    calls = {item.get("call_id") for item in items if item.get("type") == "function_call"}
    return [item for item in items if item.get("type") != "function_call_output" or item.get("call_id") in calls]


def _forget_unused(database: sqlite3.Connection, before: float) -> None:
    # A few at a time: whoever adds an item waits for it.
    old = [row[0] for row in database.execute("SELECT id FROM memories WHERE used < ? LIMIT 20", (before,))]
    for memory in old:
        database.execute("DELETE FROM items WHERE memory = ?", (memory,))
        database.execute("DELETE FROM memories WHERE id = ?", (memory,))
