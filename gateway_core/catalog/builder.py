"""Builds the catalog: discovers agent entries, loads new and changed agents, and replaces the current catalog.

If the new version of an agent fails to load, its last good version stays active; other agents are not affected. The
hook `discover_agents` supplies the entries.
"""

import asyncio
import importlib
import logging
import re
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack

from attrs import evolve

from gateway_core.catalog.agent_loader import AgentLoader, LoadAgainError, Loaded
from gateway_core.catalog.change_log import log_agents, log_tools
from gateway_core.catalog.load_errors import diagnose, public_reason
from gateway_core.catalog.runnables import DiagnosisRunnable
from gateway_core.catalog.tool_binding import UNKNOWN_TOOL
from gateway_core.catalog.validation import SANDBOX
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import DiscoveryError, GatewayError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.observability.log_context import in_log_context
from gateway_core.types import DEFAULT_NAMESPACE, AgentEntry, BrokenAgent, Catalog, ServedAgent

logger = logging.getLogger(__name__)

# Error codes whose cause can be fixed outside the agent's files: by a package, a variable, a tool, a setting or a rule.
# Agents that failed with one of them are loaded again at each refresh.
_FIXED_ELSEWHERE = frozenset({"dependency", "environment", "security", SANDBOX, UNKNOWN_TOOL})
# Time after which a reload logs the agents that are still loading.
SLOW_SECONDS = 2.0
_VALID_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class CatalogBuilder:
    """Holds the current catalog and builds the next one.

    Args:
        hooks: Supplies agent entries.
        loader: Loads new and changed agents.
        announce: Called once for each error.
        show_broken: Whether to serve the diagnosis of an agent that has never loaded in place of the agent.
        only: The name of a model. The other agents are not loaded.
    """

    def __init__(
        self,
        hooks: Hooks,
        loader: AgentLoader,
        announce: Callable[[GatewayError], None],
        *,
        show_broken: bool,
        only: str | None = None,
    ) -> None:
        self.show_broken = show_broken
        self.discovered: Sequence[str] = ()
        """The ids of all discovered agents."""
        self._only = only.casefold() if only is not None else None
        self._current = Catalog()
        self._loaded: Callable[[], Catalog] | None = None
        self._hooks = hooks
        self._loader = loader
        self._announce = announce
        self._modules: dict[str, tuple[ServedAgent, ...]] = {}
        """The agents served for each entry, by the entry's id."""
        self._lock = asyncio.Lock()
        self._held: set[AsyncExitStack] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self.loading: dict[str, AgentEntry] = {}
        """The agents that the current refresh has yet to load or to reuse, by id."""
        self.loads: Counter[str] = Counter()
        """Number of loads of each agent, by its id."""
        self._reported: set[tuple[str | None, str]] = set()
        self._loads_now: dict[str, Loaded] = {}
        """The loads of the current refresh, by the entry's id."""

    @property
    def current(self) -> Catalog:
        """The current catalog. The first one grows while agents load, and has generation 0 until it is complete."""
        if self._loaded is not None:
            self._current, self._loaded = self._loaded(), None
        return self._current

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
            self.discovered = [entry.id for entry in entries]
            entries = [entry for entry in entries if self._is_wanted(entry)]
            tools = self._loader.tool_binder.offered
            self._loader.tool_binder.refresh()
            self.loading = {entry.id: entry for entry in entries}
            known = {*self._modules, *self.current.broken}
            new = {each: entry for each, entry in self.loading.items() if each not in known}
            if self.current.generation and new:
                # Meanwhile, requests for them receive 503 instead of 404.
                self._replace(evolve(self.current, loading=new))
            # At the start, the server logs the progress.
            loop = asyncio.get_running_loop()
            slow = loop.call_later(SLOW_SECONDS, self._log_slow) if self.current.generation else None
            try:
                modules, broken = await self._build(entries, again)
            except BaseException:
                self._replace(evolve(self.current, loading={}))
                raise
            finally:
                self.loading = {}
                if slow is not None:
                    slow.cancel()
            agents = _by_id(entries, modules, problems.append)
            before, self._modules = self._modules, modules
            broken_before, first = self.current.broken, self.current.generation == 0
            self._report(problems)
            if self.current.generation == 0 or self.current.loading or not _same(agents, broken, self.current):
                seconds = time.perf_counter() - began
                self._replace(Catalog(agents, broken, self.current.generation + 1, seconds))
            # A reference would keep replaced versions alive.
            loads, self._loads_now = self._loads_now, {}
            if not first:
                log_tools(tools, self._loader.tool_binder.offered)
                log_agents(before, broken_before, modules, broken, loads)
            return self.current

    def _replace(self, catalog: Catalog) -> None:
        self._current, self._loaded = catalog, None

    async def _build(
        self, entries: Sequence[AgentEntry], again: str | None
    ) -> tuple[dict[str, tuple[ServedAgent, ...]], dict[str, BrokenAgent]]:
        """Load the modules, concurrently where one takes long. The first catalog grows as they load.

        Returns:
            The agents to serve for each entry, and the failures, both by the entry's id.
        """
        first = self.current.generation == 0
        modules: dict[str, tuple[ServedAgent, ...]] = {}
        broken: dict[str, BrokenAgent] = {}
        disturbed: list[AgentEntry] = []

        async def load(entry: AgentEntry, *, alone: bool = False) -> None:
            serving = self._modules.get(entry.id, ())
            repeat = again in (entry.id, *(each.id for each in serving))
            try:
                served, failure = await self._serve(entry, again=repeat, alone=alone)
            except LoadAgainError:
                disturbed.append(entry)
                return
            if not served and failure is not None and self.show_broken:
                served = (self._diagnosis(entry, failure),)
            modules[entry.id] = served
            if failure is not None:
                broken[entry.id] = failure
            del self.loading[entry.id]
            if first:
                self._loaded = snapshot

        def in_order() -> dict[str, BrokenAgent]:
            return {entry.id: broken[entry.id] for entry in entries if entry.id in broken}

        def snapshot() -> Catalog:
            return Catalog(_by_id(entries, modules), in_order(), loading={**self.loading})

        if first:
            self._loaded = snapshot
        async with asyncio.TaskGroup() as loads:
            for entry in entries:
                loads.create_task(load(entry))
        for entry in disturbed:
            await load(entry, alone=True)
        return modules, in_order()

    def _log_slow(self) -> None:
        logger.info("still loading: %s", ", ".join(self._loader.active))

    def _is_wanted(self, entry: AgentEntry) -> bool:
        if self._only is None:
            return True
        # A module with several agents serves each under an id that starts with the entry's.
        names = (entry.id.casefold(), f"{DEFAULT_NAMESPACE}/{entry.id.casefold()}")
        return any(f"{self._only}/".startswith(f"{name}/") for name in names)

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

    async def _serve(
        self, entry: AgentEntry, *, again: bool, alone: bool
    ) -> tuple[tuple[ServedAgent, ...], BrokenAgent | None]:
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
            return await self._load(entry, alone=alone), None
        except LoadAgainError:
            raise
        except Exception as error:
            diagnosis = diagnose(error, entry.source)
            if tried is not None and str(tried.error) == str(diagnosis):
                return serving, tried
            diagnosis.agent_id = entry.id
            with in_log_context(namespace=entry.namespace, module_path=entry.source):
                self._announce(diagnosis)
            return serving, BrokenAgent(entry.id, entry.source, diagnosis, entry.digest)

    def _diagnosis(self, entry: AgentEntry, failure: BrokenAgent) -> ServedAgent:
        """Return the stand-in for an agent that has never loaded, reusing the current one for the same failure."""
        serving = self.current.agents.get(entry.id)
        if serving is not None and self.current.broken.get(entry.id) is failure:
            return serving
        return _as_diagnosis(entry, failure)

    async def _load(self, entry: AgentEntry, *, alone: bool) -> tuple[ServedAgent, ...]:
        loaded = await self._loader.load(entry, alone=alone)
        self.loads.update(each.id for each in loaded.served)
        self._loads_now[entry.id] = loaded
        self._hold(entry, loaded)
        return loaded.served

    def _hold(self, entry: AgentEntry, loaded: Loaded) -> None:
        """Hold a module's resources until the last run of its agents releases them, or the gateway stops."""
        held, work, unload, source = loaded.held, loaded.work, entry.unload, entry.source
        self._held.add(held)
        loop = asyncio.get_running_loop()
        in_use = len(loaded.served)

        async def retire() -> None:
            self._held.discard(held)
            await held.aclose()
            if unload is not None:
                unload()
            for left in work.running() if work is not None else ():
                logger.warning("%s: the replaced version still runs: %s", source, left)

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
        for each in loaded.served:
            weakref.finalize(each, gone).atexit = False

    async def close(self) -> None:
        """Release all agents and close their resources."""
        self._replace(Catalog())
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


def _by_id(
    entries: Iterable[AgentEntry],
    modules: Mapping[str, tuple[ServedAgent, ...]],
    report: Callable[[GatewayError], None] = lambda _: None,
) -> dict[str, ServedAgent]:
    """Return the agents of all modules, in the order of their entries."""
    taken = {entry.id.casefold(): entry.source for entry in entries}
    return {
        each.id: each
        for entry in entries
        for each in _without_conflicts(modules.get(entry.id, ()), entry, taken, report)
    }


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
    text = f"The agent {entry.id} could not be loaded: {public_reason(failure.error)}"
    return ServedAgent(entry, DiagnosisRunnable(text), display_name=f"{entry.id} (broken)", description=text)
