"""Discover, load what changed, and swap: from the entries that plugins find to the agents that are served.

A version that cannot be loaded leaves the last good one serving and touches no other agent. This module does not
know where agents come from; `discover_agents` does.
"""

import asyncio
import importlib
import re
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from gateway_core.diagnosis import diagnose
from gateway_core.equipping import UNKNOWN_TOOL
from gateway_core.errors import DiscoveryError, GatewayError
from gateway_core.hooks import Hooks
from gateway_core.loader import Loader
from gateway_core.runnables import DiagnosisRunnable
from gateway_core.threads import DaemonThread
from gateway_core.types import AgentEntry, BrokenAgent, Catalog, ServedAgent

# What keeps an agent out although its files may be right: a package, a variable or a tool may have come since.
_MENDED_ELSEWHERE = frozenset({"dependency", "environment", UNKNOWN_TOOL})
_VALID_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class CatalogBuilder:
    """Keeps the current catalog, and makes the next one.

    Args:
        hooks: Asked for entries.
        loader: Loads what changed.
        announce: Called once for each error.
        show_broken: Whether an agent that never loaded is served as its own diagnosis.
    """

    def __init__(
        self, hooks: Hooks, loader: Loader, announce: Callable[[GatewayError], None], *, show_broken: bool
    ) -> None:
        self._show_broken = show_broken
        self.current = Catalog()
        self._hooks = hooks
        self._loader = loader
        self._announce = announce
        self._lock = asyncio.Lock()
        self._held: set[AsyncExitStack] = set()
        self._retiring: set[asyncio.Task[None]] = set()

    async def refresh(self) -> Catalog:
        """Make a new catalog and swap it in. What did not change is not loaded again."""
        async with self._lock:
            began = time.perf_counter()
            importlib.invalidate_caches()
            entries = await DaemonThread(lambda: self._hooks.discover_agents(self._announce)).result()
            self._loader.equipper.refresh()
            agents: dict[str, ServedAgent] = {}
            broken: dict[str, BrokenAgent] = {}
            for entry in self._distinct(entries):
                served, failure = await self._serve(entry)
                if served is None and failure is not None and self._show_broken:
                    served = _as_diagnosis(entry, failure)
                if served is not None:
                    agents[entry.id] = served
                if failure is not None:
                    broken[entry.id] = failure
            self.current = Catalog(agents, broken, self.current.generation + 1, time.perf_counter() - began)
            return self.current

    def _distinct(self, entries: Iterable[AgentEntry]) -> list[AgentEntry]:
        first: dict[str, AgentEntry] = {}
        for entry in entries:
            if not _VALID_ID.fullmatch(entry.id):
                self._announce(
                    DiscoveryError(
                        f"{entry.id!r} cannot be a model's name",
                        source=entry.source,
                        hint="use letters, digits, '_', '-' and '.', and start with none of the last two",
                    )
                )
                continue
            other = first.setdefault(entry.id.casefold(), entry)
            if other is not entry:
                self._announce(
                    DiscoveryError(
                        f"the name '{entry.id}' is taken by {other.source}", source=entry.source, hint="rename one"
                    )
                )
        return list(first.values())

    async def _serve(self, entry: AgentEntry) -> tuple[ServedAgent | None, BrokenAgent | None]:
        """The agent to serve for an entry, and what is wrong with its newest version."""
        serving = self.current.agents.get(entry.id)
        tried = self.current.broken.get(entry.id)
        if tried is not None and tried.digest == entry.digest and tried.error.code not in _MENDED_ELSEWHERE:
            return serving, tried
        if isinstance(getattr(serving, "runnable", None), DiagnosisRunnable):
            serving = None
        try:
            if serving is not None and serving.entry.digest == entry.digest and self._loader.equipper.rebind(serving):
                return serving, None
            return await self._load(entry), None
        except Exception as error:
            diagnosis = diagnose(error, entry.source)
            diagnosis.agent_id = entry.id
            self._announce(diagnosis)
            return serving, BrokenAgent(entry.id, entry.source, diagnosis, entry.digest)

    async def _load(self, entry: AgentEntry) -> ServedAgent:
        loaded = await self._loader.load(entry)
        self._hold(loaded.served, loaded.held)
        return loaded.served

    def _hold(self, served: ServedAgent, held: AsyncExitStack) -> None:
        """Keep what an agent needs until the last run has let go of it, or the gateway stops."""
        self._held.add(held)
        unload = served.entry.unload
        loop = asyncio.get_running_loop()

        async def retire() -> None:
            self._held.discard(held)
            await held.aclose()
            if unload is not None:
                unload()

        def start() -> None:
            task = loop.create_task(retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

        def gone() -> None:
            # May be called from any thread, wherever the last reference was dropped.
            if not loop.is_closed():
                loop.call_soon_threadsafe(start)

        # Runs hold the agent that they run.
        weakref.finalize(served, gone).atexit = False

    async def close(self) -> None:
        """Let go of all agents, and of what they hold."""
        self.current = Catalog()
        for held in [*self._held]:
            await held.aclose()
        self._held.clear()
        if self._retiring:
            await asyncio.wait(self._retiring)


def _as_diagnosis(entry: AgentEntry, failure: BrokenAgent) -> ServedAgent:
    text = f"The agent {entry.id} could not be loaded: {failure.error}"
    return ServedAgent(entry, DiagnosisRunnable(text), display_name=f"{entry.id} (broken)", description=text)
