"""What an agent with a memory is told: a session of the SDK holds the chat, and only what is new in it is given.

The session's items are what it goes by; it does not know where they are kept. A chat's runs take turns, so that what
they remember stays in order.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import RunContext, ServedAgent

if TYPE_CHECKING:
    from agents.memory import Session

Items = Sequence[Mapping[str, Any]]

_ALL = 1_000_000
"""A limit that no chat reaches: without one the session would tell as many as its settings say."""


class SessionMemory:
    """Finds the session of a run's chat.

    Args:
        hooks: Asked for it.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, run: RunContext, served: ServedAgent) -> AsyncIterator["Session | None"]:
        """The session, for this run alone until the context is left. None if the agent asks for no memory, the client
        does not say which chat it is, or no plugin keeps sessions."""
        if not served.memory or run.session_id is None:
            yield None
            return
        # Held here while it is waited for: the dictionary alone would let it go.
        turn = self._turns.setdefault((run.principal.id, served.id, run.session_id), asyncio.Lock())
        async with turn:
            yield self._hooks.session(run, served.entry)


async def new_items(session: "Session", items: Items) -> list[Mapping[str, Any]]:
    """What of a conversation the session has not heard: what the user said after the last answer.

    A client that sends the whole chat may have gone back in it, to ask again or something else; then the session
    forgets from there on. A client that sends only what is new sends no answers, and nothing is forgotten.

    Args:
        session: What is remembered.
        items: The conversation as the client has it, as items of the Responses format.
    """
    start = len(items)
    while start and items[start - 1].get("role") == "user":
        start -= 1
    remembered = await session.get_items(_ALL)
    if not remembered:
        return [*items]
    if start:
        before = sum(item.get("role") == "user" for item in items[:start])
        for _ in range(_after(before, remembered)):
            await session.pop_item()
    return [*items[start:]]


def _after(turns: int, remembered: Sequence[Any]) -> int:
    """How many items there are from the user's message with this number on, counted from 0."""
    seen = 0
    for index, item in enumerate(remembered):
        if item.get("role") == "user":
            if seen == turns:
                return len(remembered) - index
            seen += 1
    return 0
