"""Loads one agent: imports its module in a thread, resolves the export, binds tools and opens its resources.

It does not store the catalog and does not decide when to load an agent.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any, Protocol

from attrs import evolve, frozen

from gateway_core.catalog.chosen_export import Chosen, locate
from gateway_core.catalog.export_resolver import ExportedAgent, Exports, resolve
from gateway_core.catalog.import_probe import probe_import
from gateway_core.catalog.import_turns import ImportTurns, Turn
from gateway_core.catalog.load_errors import blame, diagnose
from gateway_core.catalog.mcp_connections import connect_servers
from gateway_core.catalog.module_isolation import interruption
from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.catalog.started_work import StartedWork
from gateway_core.catalog.tool_binding import ToolBinder
from gateway_core.catalog.validation import check
from gateway_core.config.settings import Config
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import LoadError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.observability.log_context import in_log_context
from gateway_core.types import AgentEntry, ServedAgent

# Interval at which the time of an import is measured.
_CLOCK_SECONDS = 0.5
# Share of processor time above which concurrent imports slow each other down.
_BUSY = 0.7
_TIMEOUT = "timeout"


class ImportScope(Protocol):
    """The scope of runs that a module starts during its import."""

    rejected_runs: int
    notes: list[str]


class LoadAgainError(Exception):
    """Another load may have disturbed this one; load the agent again when no other load is active."""


@frozen
class Loaded:
    """The agents of a loaded module, and the resources held open for them."""

    served: tuple[ServedAgent, ...]
    """One agent under the id of the entry, or several agents of equal rank, each under its own id."""
    held: AsyncExitStack
    seconds: float
    """Load time."""
    notes: tuple[str, ...] = ()
    """The warnings about its changes of the process, which are already in the log."""
    work: StartedWork | None = None
    """The threads and processes that its import started."""


class AgentLoader:
    """Loads agents.

    Args:
        hooks: The hook `admit_agent` decides whether an agent may be imported.
        config: Supplies the load timeout and whether to use a trial import.
        turns: Gives each load its turn, and restores process-wide settings.
        importing: Wraps each import, so that runs started during the import use the gateway's models.
        tool_binder: Binds the gateway's tools to agents.
    """

    def __init__(
        self,
        hooks: Hooks,
        config: Config,
        turns: ImportTurns,
        importing: Callable[[AgentEntry], AbstractContextManager[ImportScope]],
        tool_binder: ToolBinder,
    ) -> None:
        self.tool_binder = tool_binder
        self._hooks = hooks
        self.configure(config)
        self._turns = turns
        self._importing = importing

    def configure(self, config: Config) -> None:
        """Use another configuration for subsequent loads."""
        self._seconds = config.catalog.load_timeout
        self._trial = config.catalog.trial_import
        self._sandbox = bool(config.runs.sandbox.client)
        self._agent_config = config.agent

    @property
    def active(self) -> list[str]:
        """The ids of the agents whose load has started, in that order."""
        return self._turns.active

    def chosen(self, entry: AgentEntry) -> str | None:
        """Return `[agents.NAME] entry`: the object that the operator chose to serve."""
        return self._agent_config(entry.id).entry

    async def load(self, entry: AgentEntry, *, alone: bool = False) -> Loaded:
        """Load a module.

        Args:
            entry: The agent.
            alone: Whether no other load may start meanwhile.

        Raises:
            LoadAgainError: Another load may have disturbed this one. Not raised if the load was alone.
            GatewayError: The diagnosis of the failure.
        """
        turn, began = Turn(entry), time.monotonic()
        # The context propagates to the import thread, so the module's own log lines carry it, too.
        with in_log_context(agent_id=entry.id, namespace=entry.namespace, module_path=entry.source, stage="load"):
            try:
                found, held = await self._turns.run(turn, lambda: self._load(turn), alone=alone)
            except Exception as error:
                diagnosis = diagnose(error, entry.source)
                # A plugin may install the requirements of one agent at a time, so the others wait for it.
                hangs = diagnosis.code == _TIMEOUT and turn.admitted
                if not alone and turn.overlapped and not hangs:
                    raise LoadAgainError from error
                # With several loads at once, a thread cannot be attributed.
                left = turn.work.running() if turn.work is not None and not turn.overlapped else []
                diagnosis.hint = "; ".join(filter(None, [diagnosis.hint, *turn.notes, *left])) or None
                raise diagnosis from (None if diagnosis is error else error)
        if turn.again and not alone:
            await held.aclose()
            if entry.unload is not None:
                entry.unload()
            raise LoadAgainError
        served = tuple(evolve(each, warnings=(*turn.notes, *each.warnings)) for each in found)
        return Loaded(served, held, time.monotonic() - began, tuple(turn.notes), turn.work)

    async def _load(self, turn: Turn) -> tuple[list[ServedAgent], AsyncExitStack]:
        entry = turn.entry
        warnings: list[str] = []
        offer = await self._import(turn, warnings)
        found = []
        for each in offer.agents:
            own = evolve(entry, id=f"{entry.id}/{each.export}") if each.variant else entry
            notes = [
                *each.notes,
                *check(each.runnable, entry.source, sandbox=self._sandbox),
                *self.tool_binder.bind(each.runnable, own),
            ]
            found.append((own, each, notes))
        held = AsyncExitStack()
        try:
            async with asyncio.timeout(self._seconds):
                warnings += await _open(offer, held)
        except BaseException:
            await held.aclose()
            raise
        return [_served(own, each, offer, [*warnings, *notes]) for own, each, notes in found], held

    async def _import(self, turn: Turn, warnings: list[str]) -> Exports:
        entry = turn.entry
        path = self.chosen(entry)

        def call() -> tuple[object, Chosen | None]:
            warnings.extend(self._hooks.admit_agent(entry))
            turn.admitted = True
            if self._trial and entry.probe_command:
                probe_import(entry.probe_command, entry.source, self._seconds)
            turn.work = StartedWork()
            try:
                exported = entry.load()
                return exported, locate(exported, path, entry.source) if path is not None else None
            finally:
                turn.work.finish()

        async def resolved(thread: DaemonThread[tuple[object, Chosen | None]]) -> Exports:
            exported, chosen = await thread.result()
            offer = await _resolve(exported, chosen, entry, warnings)
            if scope.rejected_runs and interruption(exported) is None:
                cure = "move the run under `if __name__ == '__main__':`"
                warnings.append(f"importing it runs an agent, which fails; {cure}")
            return offer

        with self._importing(entry) as scope:
            thread = DaemonThread(call)
            offer = asyncio.create_task(resolved(thread))
            try:
                # The trial import has a separate timeout of the same length.
                if await self._in_time(offer, self._seconds * (2 if self._trial else 1)):
                    return await offer
                self._turns.hangs(turn, thread.ended)
                raise self._timeout_error(entry, thread)
            finally:
                offer.cancel()
                turn.notes += scope.notes
                self._turns.restore(turn)

    async def _in_time(self, task: "asyncio.Task[Any]", seconds: float) -> bool:
        """Wait for a task. The time in which several loads share a busy processor counts only in part.

        Args:
            task: The task.
            seconds: The time limit.

        Returns:
            Whether the task is done.
        """
        while seconds > 0 and not task.done():
            began, used = time.monotonic(), time.process_time()
            await asyncio.wait([task], timeout=min(seconds, _CLOCK_SECONDS))
            passed = time.monotonic() - began
            busy = time.process_time() - used > _BUSY * passed
            seconds -= passed / self._turns.crowd if busy else passed
        return task.done()

    def _timeout_error(self, entry: AgentEntry, thread: DaemonThread[Any]) -> LoadError:
        file, line, text = blame(thread.stack(), entry.source)
        return LoadError(
            f"importing the module timed out after {self._seconds:g} s",
            source=file or entry.source,
            line=line,
            source_line=text,
            hint="move code that waits for input or for a server out of the module's top level; the import continues "
            "until the gateway restarts",
            code=_TIMEOUT,
        )


async def _resolve(exported: object, chosen: Chosen | None, entry: AgentEntry, warnings: list[str]) -> Exports:
    """Resolve the exports of a module, also if its import ended early."""
    stopped = interruption(exported)
    if stopped is None:
        return await resolve(exported, entry.source, name=entry.id, chosen=chosen)
    try:
        offer = await resolve(exported, entry.source, name=entry.id, chosen=chosen)
    except LoadError:
        raise stopped from None
    diagnosis = diagnose(stopped, entry.source)
    warnings.append(f"{diagnosis}; the lines below it were not executed")
    return offer


async def _open(offer: Exports, held: AsyncExitStack) -> list[str]:
    """Call the module's `setup` and connect its agents' MCP servers. Returns warnings for the operator."""
    if offer.setup is not None:
        await _call(offer.setup)
    if offer.teardown is not None:
        held.push_async_callback(_call, offer.teardown)
    return await connect_servers(offer.reachable, held)


async def _call(function: Callable[[], Any]) -> None:
    result = function()
    if inspect.isawaitable(result):
        await result


def _served(entry: AgentEntry, found: ExportedAgent, offer: Exports, warnings: list[str]) -> ServedAgent:
    name = offer.settings.get("display_name")
    if name and found.variant:
        name = f"{name} ({found.export})"
    return ServedAgent(
        entry,
        found.runnable,
        display_name=str(name) if name else entry.id,
        description=found.description or entry.description,
        export=found.export,
        meta=offer.meta,
        model=offer.settings.get("model"),
        memory=offer.settings.get("memory") is not None,
        client_tools=offer.settings.get("client_tools"),
        structured=isinstance(found.runnable, AgentRunnable) and found.runnable.agent.output_type not in (None, str),
        warnings=tuple(warnings),
    )
