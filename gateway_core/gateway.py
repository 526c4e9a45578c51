"""Holds the configuration, plugins, catalog and runs of a gateway, and starts and stops them.

It has no HTTP interface; `app.py` adds that. The module has no global instance, so one process can host several
gateways.
"""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from gateway_core.catalog.agent_graph import inventory
from gateway_core.catalog.agent_loader import AgentLoader
from gateway_core.catalog.builder import CatalogBuilder
from gateway_core.catalog.import_turns import ImportTurns
from gateway_core.catalog.tool_binding import ToolBinder
from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config
from gateway_core.config.values import did_you_mean
from gateway_core.errors import ConfigError, DiscoveryError, GatewayError, LoadError, PluginError, errors_of
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.plugin_loader import Plugins, load_plugins
from gateway_core.hooks.reconfigure import Reconfigurer
from gateway_core.hooks.specs import RecordStore
from gateway_core.net.addresses import is_unspecified
from gateway_core.observability.log_context import in_log_context
from gateway_core.runs import runner
from gateway_core.runs.child_processes import attached_children, open_files
from gateway_core.runs.detached_runs import DetachedRuns
from gateway_core.runs.engine import Engine
from gateway_core.runs.exit_guard import install_exit_guard
from gateway_core.runs.process_watch import ProcessWatch
from gateway_core.runs.run_stats import RunStats
from gateway_core.runs.script import install_input
from gateway_core.runs.tool_authorization import governing
from gateway_core.runs.tool_executor import ToolExecutor
from gateway_core.sdk import compat, deferred_models
from gateway_core.sdk.global_settings import GlobalSettings
from gateway_core.storage.memory_record_store import MemoryRecordStore
from gateway_core.storage.state_dir import make_folder
from gateway_core.types import AuditContext, Catalog, Finding, Measurement

logger = logging.getLogger(__name__)

# Time that the start of a server waits for agents; usually, all of them load within it.
_START_SECONDS = 1.0


class RunningGateway:
    """A gateway. Plugins see it as `hooks.specs.Gateway` and use only that protocol.

    Args:
        config: The validated configuration.
        extra_plugins: Additional plugin classes by name, which are not installed as entry points.
        problems: Collects the errors of plugins, which the gateway then starts without.
        only: The name of a model. Only its agent is loaded.
        serving: Whether it will serve requests. If not, what only a server needs is not prepared.

    Raises:
        PluginError: A plugin cannot be loaded.
        ConfigError: A plugin's table is invalid.
    """

    def __init__(
        self,
        config: Config,
        extra_plugins: Mapping[str, type] | None = None,
        problems: Problems | None = None,
        *,
        only: str | None = None,
        serving: bool = True,
    ) -> None:
        compat.check(serving=serving)
        self._only = only
        self._unreported: list[GatewayError] = []
        """Problems of discovery and of plugins, which usually concern other agents than the only one."""
        self._serving = serving
        self.config = config
        self._problems = problems
        self.plugins: Plugins = load_plugins(config, self, extra_plugins, problems)
        self.hooks: Hooks = self.plugins.hooks
        """The typed hook calls of the plugins."""
        self.engine: Engine
        self.detached_runs: DetachedRuns
        self.records: RecordStore
        self._tool_binder: ToolBinder | None = None
        self._threads: ToolExecutor | None = None
        self.reconfigurer = Reconfigurer(config, self.plugins, self._configure, self.report)
        self._builder: CatalogBuilder | None = None
        self._unknown_agents: set[str] = set()
        self._loader: AgentLoader
        self._loading: asyncio.Task[None] | None = None
        self._resources = AsyncExitStack()
        self.owns_process = False
        """Whether the process serves only the gateway; it then restores what runs change in the process."""
        self.admin_address = config.server.admin_address
        """The address of `admin_listen`. When set, only this address serves the admin pages."""

    @property
    def catalog(self) -> Catalog:
        """The current catalog. It grows while the gateway starts."""
        return self._builder.current if self._builder else Catalog()

    @property
    def discovered(self) -> Sequence[str]:
        """The ids of all discovered agents, also of those that are not loaded."""
        return self._builder.discovered if self._builder else ()

    @property
    def importing(self) -> list[str]:
        """The ids of the agents that are being loaded, the slowest first; without those that wait for their turn."""
        return self._loader.active

    @property
    def stopping(self) -> bool:
        """Whether the gateway is shutting down."""
        return self._builder is not None and self.engine.stopping

    def serves_admin_pages(self, address: tuple[str, int] | None) -> bool:
        """Whether the admin pages are available at a local address."""
        if self.admin_address is None:
            return True
        host, port = self.admin_address
        return address is not None and address[1] == port and (is_unspecified(host) or address[0] == host)

    @property
    def ready(self) -> bool:
        """Whether the first catalog is loaded and the gateway is not shutting down."""
        return self.catalog.generation > 0 and not self.engine.stopping

    def tools(self) -> list[dict[str, Any]]:
        """List the gateway tools and the agents that use each, as JSON for operators."""
        return self._tool_binder.describe(self.catalog.agents.values()) if self._tool_binder else []

    def facts(self, agent_id: str) -> dict[str, Any]:
        """Describe a served agent as JSON for operators: its parts, number of loads and run statistics."""
        served, tally = self.catalog.agents[agent_id], self.engine.run_stats.get(agent_id) or RunStats()
        return {
            "generation": self._builder.loads[agent_id] if self._builder else 0,
            "model": self.config.agent(agent_id).model or served.model,
            "agents": inventory(served.runnable.agents),
            **tally.as_json(),
        }

    def tool_threads(self) -> dict[str, int]:
        """Number of tool threads that each agent currently uses, by agent id."""
        return self._threads.held if self._threads else {}

    def measurements(self) -> list[Measurement]:
        """Current measurements of the core and of all plugins."""
        return [*self._own_measurements(), *self.hooks.measurements()]

    def _own_measurements(self) -> Iterator[Measurement]:
        active = self.engine.active if self._builder is not None else 0
        yield Measurement("agent_gateway.runs.active", active, "{run}", "Active runs.")
        threads = sum(self.tool_threads().values())
        yield Measurement("agent_gateway.tool.threads", threads, "{thread}", "Active tool threads.")
        about = "Threads in the process."
        yield Measurement("agent_gateway.threads", threading.active_count(), "{thread}", about)
        if (files := open_files()) is not None:
            yield Measurement("agent_gateway.files", files, "{file}", "Open file descriptors.")
        about = "Child processes that agents started and that are still running."
        yield Measurement("agent_gateway.processes.left", len(attached_children()), "{process}", about)
        # An exporter registers the metrics at start, when there are no values.
        nothing = {("", ""): 0}
        engine = self.engine if self._builder is not None else None
        about = "Child processes that were still running after the run that started them."
        for (agent, tool), count in ((engine and engine.leftovers and engine.leftovers.counts) or nothing).items():
            labels = {"agent": agent, "tool": tool}
            yield Measurement("agent_gateway.processes.leftover", count, "{process}", about, labels, total=True)
        about = "Files and sockets that tools have left open."
        for (agent, tool), count in ((engine and engine.files.open()) or nothing).items():
            labels = {"agent": agent, "tool": tool}
            yield Measurement("agent_gateway.files.left", count, "{file}", about, labels)
        left = sum(tally.tasks_left for tally in self.engine.run_stats.values()) if self._builder is not None else 0
        yield Measurement("agent_gateway.tasks.left", left, "{task}", "Orphaned tasks still running.")

    async def loaded(self) -> None:
        """Wait until the first catalog is complete.

        Raises:
            GatewayError: It could not be built.
        """
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _stop_loading(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])

    async def reload(self, again: str | None = None) -> Catalog:
        """Reload the configuration, discover agents, load the changed ones, and swap the catalog.

        Args:
            again: The id of an agent to load again even if its files are unchanged.
        """
        if self._builder is None:
            return Catalog()
        await self.reconfigurer.read_again()
        # The gateway may have stopped in the meantime.
        return await self._refresh(self._builder, again) if self._builder is not None else Catalog()

    async def _load_first(self, builder: CatalogBuilder) -> None:
        # Without a result: the task would keep the first version of each agent alive.
        await self._refresh(builder)

    async def _refresh(self, builder: CatalogBuilder, again: str | None = None) -> Catalog:
        catalog = await builder.refresh(again)
        if self._unreported:
            self._report_relevant(catalog)
        self._report_unknown_agents(catalog)
        self.hooks.on_catalog(catalog, (*self.hooks.watch_paths(), self.config.file))
        return catalog

    def _report_relevant(self, catalog: Catalog) -> None:
        """Report the problems that may be the reason why the only agent is missing, or lacks a tool."""
        missing = not catalog.agents and not catalog.broken
        if missing or any(agent.warnings for agent in catalog.agents.values()):
            errors, self._unreported, self._only = self._unreported, [], None
            for error in errors:
                if missing or isinstance(error, PluginError):
                    self.report(error)

    def _report_unknown_agents(self, catalog: Catalog) -> None:
        """Report each `[agents.NAME]` table that matches no agent, once until that changes."""
        ids = {*catalog.agents, *catalog.broken, *self.discovered}
        unknown = {name for name in self.config.agents if name.casefold() not in {each.casefold() for each in ids}}
        for name in sorted(unknown - self._unknown_agents):
            self.report(
                ConfigError(
                    f"the settings are for an unknown agent '{name}'",
                    source=f"[agents.{name}]",
                    hint=did_you_mean(name, ids),
                    code="no_such_agent",
                )
            )
        self._unknown_agents = unknown

    def _configure(self, config: Config) -> None:
        """Apply a new configuration to the requests and loads that start from now on."""
        self.config = config
        self.engine.configure(config)
        self._loader.configure(config)
        self._loader.tool_binder.configure(config)
        if self._builder is not None:
            self._builder.show_broken = config.catalog.show_broken

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the audit findings of all plugins."""
        return self.hooks.audit_findings(context)

    def state_folder(self, *, create: bool = True) -> Path | None:
        """Return the state directory, or `None` when persistence is disabled (`[state] folder = ""`)."""
        folder = self.config.state.folder
        return make_folder(folder) if folder and create else folder

    def report(self, error: GatewayError) -> None:
        """Log an error and announce it to every plugin."""
        for each in errors_of(error):
            if self._only is not None and isinstance(each, DiscoveryError | PluginError):
                self._unreported.append(each)
                continue
            self.config.locate(each)
            # The command prints the failure of its only agent.
            if self._only is None or not isinstance(each, LoadError):
                with in_log_context(stage=each.stage, code=each.code, agent_id=each.agent_id):
                    logger.warning("%s: %s", each.stage, each)
            self.hooks.on_error(each)

    async def __aenter__(self) -> "RunningGateway":
        """Start: enter the plugins' lifespans, then build the first catalog.

        If the gateway owns its process, slow agents continue to load in the background.
        """
        await self._resources.__aenter__()
        try:
            loop = asyncio.get_running_loop()
            install_exit_guard(loop)
            install_input()
            limits = self.config.runs
            self._threads = ToolExecutor(limits.tool_threads, limits.tool_threads_per_agent)
            loop.set_default_executor(self._threads)
            await runner.self_test()
            if self._serving:
                await asyncio.to_thread(deferred_models.complete)
            try:
                await self._resources.enter_async_context(self.hooks.lifespans(self._problems))
            except GatewayError as error:
                self.config.locate(error)
                raise
            self._tool_binder = ToolBinder(self.hooks, self.config, governing(self.hooks), self.report)
            self.records = self.hooks.record_store() or MemoryRecordStore()
            settings = GlobalSettings(tracing=self.config.runs.sdk_tracing, processors=self.hooks.trace_processors())
            self._resources.callback(settings.close)
            watch = ProcessWatch(settings)
            self.engine = Engine(self.hooks, self.config, self._tool_binder, self.records, lambda: self.catalog, watch)
            if self.owns_process:
                self.engine.watch_process()
            self.detached_runs = DetachedRuns(lambda: self.config.runs)
            turns = ImportTurns(settings)
            self._loader = AgentLoader(self.hooks, self.config, turns, self.engine.importing, self._tool_binder)
            self._builder = builder = CatalogBuilder(
                self.hooks,
                self._loader,
                self.report,
                show_broken=self.config.catalog.show_broken,
                only=self._only,
            )
            if self.owns_process:
                watch.include_process(turns.process, lambda: bool(builder.loading))
            self._loading = asyncio.create_task(self._load_first(builder))
            await asyncio.wait([self._loading], timeout=_START_SECONDS if self.owns_process else None)
            if self._loading.done():
                await self._loading
        except BaseException:
            await self._stop_loading()
            await self._resources.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop: end all runs, then exit the plugins' lifespans in reverse order."""
        await self._stop_loading()
        await self.engine.drain(0)
        await self.detached_runs.close()
        await self.engine.sandboxes.close()
        if self.engine.leftovers is not None:
            await self.engine.leftovers.close()
        if self._builder is not None:
            await self._builder.close()
        self._builder = None
        await self._resources.aclose()
