"""Discover, load what changed, and swap: from the entries that plugins find to the agents that are served.

A version that cannot be loaded leaves the last good one serving and touches no other agent. This module does not
know where agents come from; `discover_agents` does.
"""

import asyncio
import importlib
import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack

from gateway_core.catalog.agent_loader import AgentLoader
from gateway_core.catalog.load_errors import diagnose
from gateway_core.catalog.runnables import DiagnosisRunnable
from gateway_core.catalog.tool_binding import UNKNOWN_TOOL
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import DiscoveryError, GatewayError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import AgentEntry, BrokenAgent, Catalog, ServedAgent

# What keeps an agent out although its files may be right: a package, a variable, a tool or a rule may have come since.
_FIXED_ELSEWHERE = frozenset({"dependency", "environment", "security", UNKNOWN_TOOL})
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
        self, hooks: Hooks, loader: AgentLoader, announce: Callable[[GatewayError], None], *, show_broken: bool
    ) -> None:
        self.show_broken = show_broken
        self.current = Catalog()
        self._hooks = hooks
        self._loader = loader
        self._announce = announce
        self._lock = asyncio.Lock()
        self._held: set[AsyncExitStack] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self.loads: Counter[str] = Counter()
        """How often each agent was loaded, by its id."""
        self._told: set[tuple[str | None, str]] = set()

    async def refresh(self, again: str | None = None) -> Catalog:
        """Make a new catalog and swap it in. What did not change is not loaded again, and if nothing did, it stays.

        Args:
            again: The id of an agent that is loaded again although its files did not change.
        """
        async with self._lock:
            began = time.perf_counter()
            importlib.invalidate_caches()
            problems: list[GatewayError] = []
            found = await DaemonThread(lambda: self._hooks.discover_agents(problems.append)).result()
            entries = _distinct(found, problems.append)
            self._tell(problems)
            self._loader.tool_binder.refresh()
            agents: dict[str, ServedAgent] = {}
            broken: dict[str, BrokenAgent] = {}
            for entry in entries:
                served, failure = await self._serve(entry, again=entry.id == again)
                if served is None and failure is not None and self.show_broken:
                    served = self._diagnosis(entry, failure)
                if served is not None:
                    agents[entry.id] = served
                if failure is not None:
                    broken[entry.id] = failure
            if self.current.generation == 0 or not _same(agents, broken, self.current):
                seconds = time.perf_counter() - began
                self.current = Catalog(agents, broken, self.current.generation + 1, seconds)
            return self.current

    def _tell(self, problems: Iterable[GatewayError]) -> None:
        """Announce what was not wrong at the last discovery already."""
        known, self._told = self._told, set()
        for problem in problems:
            what = (problem.source, problem.message)
            if what not in known and what not in self._told:
                self._announce(problem)
            self._told.add(what)

    async def _serve(self, entry: AgentEntry, *, again: bool) -> tuple[ServedAgent | None, BrokenAgent | None]:
        """The agent to serve for an entry, and what is wrong with its newest version."""
        serving = self.current.agents.get(entry.id)
        if isinstance(getattr(serving, "runnable", None), DiagnosisRunnable):
            serving = None
        tried = self.current.broken.get(entry.id)
        if tried is not None and (again or tried.digest != entry.digest):
            tried = None
        if tried is not None and tried.error.code not in _FIXED_ELSEWHERE:
            return serving, tried
        try:
            unchanged = serving is not None and serving.entry.digest == entry.digest and not again
            if serving is not None and unchanged and self._loader.tool_binder.rebind(serving):
                return serving, None
            return await self._load(entry), None
        except Exception as error:
            diagnosis = diagnose(error, entry.source)
            if tried is not None and str(tried.error) == str(diagnosis):
                return serving, tried
            diagnosis.agent_id = entry.id
            self._announce(diagnosis)
            return serving, BrokenAgent(entry.id, entry.source, diagnosis, entry.digest)

    def _diagnosis(self, entry: AgentEntry, failure: BrokenAgent) -> ServedAgent:
        """What is served in place of an agent that never loaded; the one that is served already if it says the same."""
        serving = self.current.agents.get(entry.id)
        if serving is not None and self.current.broken.get(entry.id) is failure:
            return serving
        return _as_diagnosis(entry, failure)

    async def _load(self, entry: AgentEntry) -> ServedAgent:
        loaded = await self._loader.load(entry)
        self.loads[entry.id] += 1
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


def _distinct(entries: Iterable[AgentEntry], report: Callable[[GatewayError], None]) -> list[AgentEntry]:
    first: dict[str, AgentEntry] = {}
    for entry in entries:
        if not _VALID_ID.fullmatch(entry.id):
            report(
                DiscoveryError(
                    f"{entry.id!r} cannot be a model's name",
                    source=entry.source,
                    hint="use letters, digits, '_', '-' and '.', and start with none of the last two",
                )
            )
            continue
        other = first.setdefault(entry.id.casefold(), entry)
        if other is not entry:
            report(
                DiscoveryError(
                    f"the name '{entry.id}' is taken by {other.source}", source=entry.source, hint="rename one"
                )
            )
    return list(first.values())


def _same(agents: Mapping[str, ServedAgent], broken: Mapping[str, BrokenAgent], catalog: Catalog) -> bool:
    return (
        list(agents) == list(catalog.agents)
        and list(broken) == list(catalog.broken)
        and all(agents[agent_id] is served for agent_id, served in catalog.agents.items())
        and all(broken[agent_id] is failure for agent_id, failure in catalog.broken.items())
    )


def _as_diagnosis(entry: AgentEntry, failure: BrokenAgent) -> ServedAgent:
    text = f"The agent {entry.id} could not be loaded: {failure.error}"
    return ServedAgent(entry, DiagnosisRunnable(text), display_name=f"{entry.id} (broken)", description=text)
