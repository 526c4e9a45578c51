"""Builds the catalog: discovers agent entries, loads new and changed agents, and replaces the current catalog.

If the new version of an agent fails to load, its last good version stays active; other agents are not affected. The
hook `discover_agents` supplies the entries.
"""

import asyncio
import importlib
import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack

from attrs import evolve

from gateway_core.catalog.agent_loader import AgentLoader
from gateway_core.catalog.load_errors import diagnose
from gateway_core.catalog.runnables import DiagnosisRunnable
from gateway_core.catalog.tool_binding import UNKNOWN_TOOL
from gateway_core.catalog.validation import SANDBOX
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import DiscoveryError, GatewayError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import AgentEntry, BrokenAgent, Catalog, ServedAgent

# Error codes whose cause can be fixed outside the agent's files: by a package, a variable, a tool, a setting or a rule.
# Agents that failed with one of them are loaded again at each refresh.
_FIXED_ELSEWHERE = frozenset({"dependency", "environment", "security", SANDBOX, UNKNOWN_TOOL})
_VALID_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class CatalogBuilder:
    """Holds the current catalog and builds the next one.

    Args:
        hooks: Supplies agent entries.
        loader: Loads new and changed agents.
        announce: Called once for each error.
        show_broken: Whether to serve the diagnosis of an agent that has never loaded in place of the agent.
    """

    def __init__(
        self, hooks: Hooks, loader: AgentLoader, announce: Callable[[GatewayError], None], *, show_broken: bool
    ) -> None:
        self.show_broken = show_broken
        self.current = Catalog()
        self._hooks = hooks
        self._loader = loader
        self._announce = announce
        self._modules: dict[str, tuple[ServedAgent, ...]] = {}
        """The agents served for each entry, by the entry's id."""
        self._lock = asyncio.Lock()
        self._held: set[AsyncExitStack] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self.loads: Counter[str] = Counter()
        """Number of loads of each agent, by its id."""
        self._reported: set[tuple[str | None, str]] = set()

    async def refresh(self, again: str | None = None) -> Catalog:
        """Build a new catalog and replace the current one.

        Unchanged agents are not loaded again. If nothing changed, the current catalog stays.

        Args:
            again: The id of an agent to load again even if its files did not change.
        """
        async with self._lock:
            began = time.perf_counter()
            importlib.invalidate_caches()
            problems: list[GatewayError] = []
            found = await DaemonThread(lambda: self._hooks.discover_agents(problems.append)).result()
            entries = [self._with_choice(entry) for entry in _distinct(found, problems.append)]
            taken = {entry.id.casefold(): entry.source for entry in entries}
            self._loader.tool_binder.refresh()
            agents: dict[str, ServedAgent] = {}
            broken: dict[str, BrokenAgent] = {}
            modules: dict[str, tuple[ServedAgent, ...]] = {}
            for entry in entries:
                serving = self._modules.get(entry.id, ())
                served, failure = await self._serve(entry, again=again in (entry.id, *(each.id for each in serving)))
                if not served and failure is not None and self.show_broken:
                    served = (self._diagnosis(entry, failure),)
                modules[entry.id] = served
                agents |= {each.id: each for each in _without_conflicts(served, entry, taken, problems.append)}
                if failure is not None:
                    broken[entry.id] = failure
            self._modules = modules
            self._report(problems)
            if self.current.generation == 0 or not _same(agents, broken, self.current):
                seconds = time.perf_counter() - began
                self.current = Catalog(agents, broken, self.current.generation + 1, seconds)
            return self.current

    def _report(self, problems: Iterable[GatewayError]) -> None:
        """Announce the problems that the previous discovery did not have."""
        known, self._reported = self._reported, set()
        for problem in problems:
            key = (problem.source, problem.message)
            if key not in known and key not in self._reported:
                self._announce(problem)
            self._reported.add(key)

    def _with_choice(self, entry: AgentEntry) -> AgentEntry:
        """Return an entry whose digest covers the operator's choice, so that a new choice loads it again."""
        chosen = self._loader.chosen(entry)
        return entry if chosen is None else evolve(entry, digest=f"{entry.digest} {chosen}")

    async def _serve(self, entry: AgentEntry, *, again: bool) -> tuple[tuple[ServedAgent, ...], BrokenAgent | None]:
        """Return the agents to serve for an entry, and the load failure of its newest version."""
        serving = self._modules.get(entry.id, ())
        if any(isinstance(each.runnable, DiagnosisRunnable) for each in serving):
            serving = ()
        tried = self.current.broken.get(entry.id)
        if tried is not None and (again or tried.digest != entry.digest):
            tried = None
        if tried is not None and tried.error.code not in _FIXED_ELSEWHERE:
            return serving, tried
        try:
            unchanged = bool(serving) and serving[0].entry.digest == entry.digest and not again
            if unchanged and all(self._loader.tool_binder.rebind(each) for each in serving):
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
        """Return the stand-in for an agent that has never loaded, reusing the current one for the same failure."""
        serving = self.current.agents.get(entry.id)
        if serving is not None and self.current.broken.get(entry.id) is failure:
            return serving
        return _as_diagnosis(entry, failure)

    async def _load(self, entry: AgentEntry) -> tuple[ServedAgent, ...]:
        loaded = await self._loader.load(entry)
        self.loads.update(each.id for each in loaded.served)
        self._hold(loaded.served, entry.unload, loaded.held)
        return loaded.served

    def _hold(self, served: tuple[ServedAgent, ...], unload: Callable[[], None] | None, held: AsyncExitStack) -> None:
        """Hold a module's resources until the last run of its agents releases them, or the gateway stops."""
        self._held.add(held)
        loop = asyncio.get_running_loop()
        in_use = len(served)

        async def retire() -> None:
            self._held.discard(held)
            await held.aclose()
            if unload is not None:
                unload()

        def start() -> None:
            nonlocal in_use
            in_use -= 1
            if in_use:
                return
            task = loop.create_task(retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

        def gone() -> None:
            # Called from the thread that drops the last reference, which may be any.
            if not loop.is_closed():
                loop.call_soon_threadsafe(start)

        # Each run holds a reference to its agent.
        for each in served:
            weakref.finalize(each, gone).atexit = False

    async def close(self) -> None:
        """Release all agents and close their resources."""
        self.current = Catalog()
        self._modules = {}
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
                    f"{entry.id!r} is not a valid model name",
                    source=entry.source,
                    hint="use letters, digits, '_', '-' and '.'; start with a letter, a digit or '_'",
                )
            )
            continue
        other = first.setdefault(entry.id.casefold(), entry)
        if other is not entry:
            report(
                DiscoveryError(
                    f"the name '{entry.id}' is already used by {other.source}",
                    source=entry.source,
                    hint="rename one of them",
                )
            )
    return list(first.values())


def _without_conflicts(
    served: Iterable[ServedAgent], entry: AgentEntry, taken: dict[str, str], report: Callable[[GatewayError], None]
) -> Iterator[ServedAgent]:
    """Yield the agents of a module whose ids are free. Ids of entries precede those of a module's several agents."""
    for each in served:
        other = None if each.id == entry.id else taken.get(each.id.casefold())
        if other is None:
            taken[each.id.casefold()] = entry.source
            yield each
        else:
            report(
                DiscoveryError(
                    f"the name '{each.id}' is already used by {other}",
                    source=entry.source,
                    hint=f"rename the variable {each.export}",
                )
            )


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
