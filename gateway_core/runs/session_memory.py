"""Session memory: an SDK session stores the chat, and the agent receives only the new items of a request.

A plugin stores the session's items. Runs of the same chat are serialized, so that the items stay in order.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import RunContext, ServedAgent

if TYPE_CHECKING:
    from agents.memory import Session

Items = Sequence[Mapping[str, Any]]

_CALLS = ("function_call", "function_call_output")
_ALL = 1_000_000
"""A limit that no chat reaches; without a limit, the session applies the one in its settings."""


class SessionMemory:
    """Provides the session of a run's chat.

    Args:
        hooks: The hook `session` supplies it.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    def of(self, run: RunContext, served: ServedAgent) -> AbstractAsyncContextManager["Session | None"]:
        """Acquire the session exclusively until the context exits.

        `None` if the agent does not use memory, the request does not identify a chat, or no plugin provides sessions.
        """
        if not served.memory or run.session_id is None:
            return nullcontext()
        return self._exclusive(run, served, run.session_id)

    @asynccontextmanager
    async def _exclusive(self, run: RunContext, served: ServedAgent, chat: str) -> AsyncIterator["Session | None"]:
        # A strong reference to the lock while waiting for it: the dictionary holds only a weak one.
        turn = self._turns.setdefault((run.principal.id, served.id, chat), asyncio.Lock())
        async with turn:
            yield self._hooks.session(run, served.entry)


async def new_items(session: "Session", items: Items) -> list[Mapping[str, Any]]:
    """Return the items that the session does not contain: the user's messages after the last answer.

    The results of a client's tools at the end of the conversation are new, with their calls, if the run that waited for
    them is no longer available.

    A client that sends the whole chat may have regenerated or edited an earlier turn; the session's items from that
    turn on are then removed. A client that sends only new messages sends no answers, and no items are removed.

    Args:
        session: The session of the chat.
        items: The client's conversation, as input items of the Responses format.
    """
    start = len(items)
    while start and items[start - 1].get("role") == "user":
        start -= 1
    remembered = await session.get_items(_ALL)
    known = {item.get("call_id") for item in remembered}
    while start and items[start - 1].get("type") in _CALLS and items[start - 1].get("call_id") not in known:
        start -= 1
    if not remembered:
        return [*items]
    if start:
        before = sum(item.get("role") == "user" for item in items[:start])
        for _ in range(_after(before, remembered)):
            await session.pop_item()
    return [*items[start:]]


def _after(turns: int, remembered: Sequence[Any]) -> int:
    """Return the number of items from the user message with this index on; 0 if there is no such message."""
    seen = 0
    for index, item in enumerate(remembered):
        if item.get("role") == "user":
            if seen == turns:
                return len(remembered) - index
            seen += 1
    return 0
