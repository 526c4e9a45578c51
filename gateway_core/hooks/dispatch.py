"""One typed method for each hook: asks every plugin that implements it, and combines the answers.

Nothing else in the gateway sees pluggy's own way of calling. Each hook is resolved once, into a tuple of plain
functions, so that a question costs no more than calling them; and answers are combined here and not by pluggy's
`firstresult`, which takes the first coroutine for an answer and so hides the plugin that refuses.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from gateway_core.config.converter import did_you_mean
from gateway_core.errors import GatewayError, PluginError, UnavailableError
from gateway_core.hooks.specs import PROJECT, Hookspecs, RecordStore
from gateway_core.types import (
    AgentEntry,
    AuditContext,
    BackgroundTask,
    Catalog,
    Check,
    Decision,
    DecisionMade,
    Finding,
    Measurement,
    ModelCall,
    Outcome,
    Principal,
    RunContext,
    Severity,
    ToolCall,
    ToolInfo,
)

if TYPE_CHECKING:
    import click
    from agents import ModelProvider, Tool
    from agents.memory import Session
    from agents.tracing import TracingProcessor
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import BaseRoute

logger = logging.getLogger(__name__)

HOOK_SECONDS = 5.0
"""What an asynchronous hook may take; then it has failed, and what it was to decide is refused."""

OPEN = Decision(True, "open", reason="no plugin guards access")


class _Implementation(NamedTuple):
    plugin: str
    call: Callable[..., Any]


class Hooks:
    """The plugins of one gateway, asked through typed methods.

    Args:
        plugins: Plugin objects by name, in the order in which they are to be called.

    Raises:
        PluginError: A plugin implements a hook that does not exist, or breaks a hook's contract.
    """

    def __init__(self, plugins: Mapping[str, object]) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hookspecs)
        # pluggy calls the plugin that was registered last first.
        for name, plugin in reversed(list(plugins.items())):
            _register(manager, name, plugin)
        self._implementations = {name: _resolve(manager, name) for name in hook_names()}
        # A plugin may begin to guard while the gateway runs, so this is looked up each time.
        self._guards = [plugins[each.plugin] for each in self._implementations["authorize"]]
        self._names = {plugin: [h for h, i in self._implementations.items() if _has(i, plugin)] for plugin in plugins}

    def implemented_by(self, plugin: str) -> list[str]:
        """The names of the hooks that a plugin implements."""
        return self._names.get(plugin, [])

    @property
    def guarded(self) -> bool:
        """Whether any plugin decides who may use an agent; without one the gateway is open."""
        return any(getattr(plugin, "guards", True) for plugin in self._guards)

    @property
    def has_tool_policy(self) -> bool:
        """Whether any plugin decides which tools may be called; without one each tool's own default holds."""
        return bool(self._implementations["authorize_tool"])

    @property
    def has_tool_observers(self) -> bool:
        """Whether any plugin wants to know of tool calls."""
        return bool(self._implementations["on_tool_end"])

    @property
    def has_model_observers(self) -> bool:
        """Whether any plugin wants to know of models' calls."""
        return bool(self._implementations["on_model_end"])

    def routes(self) -> "list[BaseRoute]":
        """Concatenated."""
        return self._concatenate("routes")

    def admin_routes(self) -> "list[BaseRoute]":
        """Concatenated."""
        return self._concatenate("admin_routes")

    def middleware(self) -> "list[Middleware]":
        """Concatenated, the first one outermost."""
        return self._concatenate("middleware")

    def commands(self) -> "dict[str, click.Command]":
        """By name, with groups of the same name merged.

        Raises:
            PluginError: Two plugins define the same command.
        """
        from gateway_core.hooks.command_groups import Offer, merge_commands

        return merge_commands(
            Offer(plugin, command.name or "", command)
            for plugin, call in self._implementations["commands"]
            for command in call()
        )

    def lifespans(self) -> list[AbstractAsyncContextManager[None]]:
        """One context manager a plugin, in the order in which to enter them."""
        return [call() for _, call in self._implementations["lifespan"]]

    def describe(self) -> dict[str, Mapping[str, Any]]:
        """By plugin. One that raises says so in its place."""
        facts: dict[str, Mapping[str, Any]] = {}
        for plugin, call in self._implementations["describe"]:
            try:
                facts[plugin] = call()
            except Exception as error:
                logger.exception("plugin %s failed in describe", plugin)
                facts[plugin] = {"error": type(error).__name__}
        return facts

    async def readiness(self) -> list[Check]:
        """Concatenated. A plugin that raises is logged, and keeps nothing from being ready."""
        checks: list[Check] = []
        for plugin, call in self._implementations["readiness"]:
            try:
                async with asyncio.timeout(HOOK_SECONDS):
                    checks.extend(await call())
            except Exception:
                logger.exception("plugin %s failed in readiness", plugin)
                checks.append(Check(plugin, ok=False, needed=False))
        return checks

    def measurements(self) -> list[Measurement]:
        """Concatenated, guarded."""
        found: list[Measurement] = []
        for plugin, call in self._implementations["measurements"]:
            try:
                found.extend(call())
            except Exception:
                logger.exception("plugin %s failed in measurements", plugin)
        return found

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Concatenated. An exception becomes a finding that names the plugin and the exception's type."""
        found: list[Finding] = []
        for plugin, call in self._implementations["audit_findings"]:
            try:
                found.extend(call(context))
            except Exception as error:
                # The text of the exception can contain values of the settings.
                message = f"the audit checks failed: {type(error).__name__}; other findings can be missing"
                found.append(Finding(Severity.HIGH, "audit_check_failed", f"plugin {plugin}", message))
        return found

    def trace_processors(self) -> "list[TracingProcessor]":
        """Concatenated."""
        return self._concatenate("trace_processors")

    def discover_agents(self, report: Callable[[GatewayError], None]) -> list[AgentEntry]:
        """Concatenated. A plugin that raises costs only its own agents; the error goes to `report`."""
        entries: list[AgentEntry] = []
        for plugin, call in self._implementations["discover_agents"]:
            try:
                entries.extend(call())
            except Exception as error:
                report(_as_plugin_error(error, plugin, "discover_agents"))
        return entries

    def watch_paths(self) -> list[Path]:
        """Concatenated. A plugin that raises is logged, and costs only its own paths."""
        paths: list[Path] = []
        for plugin, call in self._implementations["watch_paths"]:
            try:
                paths.extend(call())
            except Exception:
                logger.exception("plugin %s failed in watch_paths", plugin)
        return paths

    def admit_agent(self, entry: AgentEntry) -> None:
        """Every plugin; the first that raises keeps the agent out."""
        for _, call in self._implementations["admit_agent"]:
            call(entry)

    def extra_tools(self, entry: AgentEntry) -> "list[Tool]":
        """Concatenated."""
        return self._concatenate("extra_tools", entry)

    def substitutes(self, tool: "Tool", entry: AgentEntry) -> list[str]:
        """Concatenated."""
        return self._concatenate("substitutes", tool, entry)

    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> "Tool":
        """Folded: each plugin gets the last one's result."""
        for _, call in self._implementations["wrap_tool"]:
            tool = call(tool, entry) or tool
        return tool

    async def authenticate(self, request: "Request") -> Principal | None:
        """First answer.

        Raises:
            UnavailableError: A plugin does not come to an answer, so that nobody can say who asks.
        """
        for plugin, call in self._implementations["authenticate"]:
            principal: Principal | None = None
            try:
                async with asyncio.timeout(HOOK_SECONDS) as limit:
                    principal = await call(request)
            except TimeoutError:
                if not limit.expired():
                    raise
                logger.error("plugin %s did not answer authenticate within %g s", plugin, HOOK_SECONDS)
                raise UnavailableError("it cannot be said at the moment who asks", retry_after=5) from None
            if principal is not None:
                return principal
        return None

    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """All must agree. An exception refuses; silence is `None`, and allows."""
        return await self._agree("authorize_request", principal, request)

    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision:
        """All must agree. Silence refuses, an exception refuses; with nobody who guards, silence allows."""
        decision = await self._agree("authorize", principal, entry)
        if decision is not None:
            return decision
        return Decision(False, "silence", reason="no policy allows it") if self.guarded else OPEN

    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision:
        """All must agree. An exception refuses; silence leaves the tool's own default."""
        decision = await self._agree("authorize_tool", run, tool)
        return decision or Decision(tool.open, "default", reason=None if tool.open else "no policy allows it")

    def offer_tools(self, report: Callable[[GatewayError], None]) -> "list[Tool]":
        """Concatenated. A plugin that raises costs only its own tools; the error goes to `report`."""
        tools: list[Tool] = []
        for plugin, call in self._implementations["offer_tools"]:
            try:
                tools.extend(call())
            except Exception as error:
                report(_as_plugin_error(error, plugin, "offer_tools"))
        return tools

    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """First answer."""
        found: Session | None = self._first("session", run, entry)
        return found

    def record_store(self) -> RecordStore | None:
        """First answer."""
        found: RecordStore | None = self._first("record_store")
        return found

    def background_task(
        self, entry: AgentEntry, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """First answer."""
        found: BackgroundTask | None = self._first("background_task", entry, headers, messages, stream)
        return found

    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """First answer."""
        found: ModelProvider | None = self._first("model_provider", run, entry)
        return found

    def admissions(self, run: RunContext, entry: AgentEntry) -> list[AbstractAsyncContextManager[None]]:
        """One context manager of each plugin that has one, in the order in which to enter them."""
        answers = (call(run, entry) for _, call in self._implementations["admission"])
        return [admission for admission in answers if admission is not None]

    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Every plugin, guarded."""
        self._announce("on_catalog", catalog, watched)

    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Every plugin, guarded."""
        self._announce("on_run_end", run, outcome)

    def on_model_end(self, call: ModelCall) -> None:
        """Every plugin, guarded."""
        self._announce("on_model_end", call)

    def on_tool_end(self, call: ToolCall) -> None:
        """Every plugin, guarded."""
        self._announce("on_tool_end", call)

    def on_decision(self, made: DecisionMade) -> None:
        """Every plugin, guarded."""
        self._announce("on_decision", made)

    def on_error(self, error: GatewayError) -> None:
        """Every plugin, guarded."""
        self._announce("on_error", error)

    def _first(self, hook: str, *arguments: Any) -> Any:
        for _, call in self._implementations[hook]:
            answer = call(*arguments)
            if answer is not None:
                return answer
        return None

    async def _agree(self, hook: str, *arguments: Any) -> Decision | None:
        """The first refusal, else the first permission, else `None`. A policy that fails refuses."""
        allowed: Decision | None = None
        for plugin, call in self._implementations[hook]:
            try:
                async with asyncio.timeout(HOOK_SECONDS):
                    decision: Decision | None = await call(*arguments)
            except Exception:
                logger.exception("plugin %s failed in %s", plugin, hook)
                return Decision(False, plugin, reason="the policy failed")
            if decision is None:
                continue
            if not decision.allowed:
                return decision
            allowed = allowed or decision
        return allowed

    def _concatenate(self, hook: str, *arguments: Any) -> list[Any]:
        return [item for _, call in self._implementations[hook] for item in call(*arguments)]

    def _announce(self, hook: str, *arguments: Any) -> None:
        for plugin, call in self._implementations[hook]:
            try:
                call(*arguments)
            except Exception:
                logger.exception("plugin %s failed in %s", plugin, hook)


def hook_names() -> list[str]:
    """The names of all hooks, in the order in which they are declared."""
    return [name for name, value in vars(Hookspecs).items() if not name.startswith("_") and callable(value)]


def _as_plugin_error(error: Exception, plugin: str, hook: str) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    wrapped = PluginError(f"fails in {hook}: {type(error).__name__}: {error}", source=f"plugin {plugin}")
    wrapped.__cause__ = error
    return wrapped


def _register(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error), source=f"plugin {name}", hint="see docs/reference/hooks.md") from error
    for hook in manager.get_hookcallers(plugin) or ():
        declared = getattr(Hookspecs, hook.name, None)
        if declared is None:
            raise PluginError(
                f"there is no hook '{hook.name}'", source=f"plugin {name}", hint=did_you_mean(hook.name, hook_names())
            )
        wanted = inspect.iscoroutinefunction(declared)
        if inspect.iscoroutinefunction(getattr(plugin, hook.name)) is not wanted:
            raise PluginError(
                f"the hook '{hook.name}' must be defined with `{'async def' if wanted else 'def'}`",
                source=f"plugin {name}",
            )


def _resolve(manager: pluggy.PluginManager, hook: str) -> tuple[_Implementation, ...]:
    declared = [p for p in inspect.signature(getattr(Hookspecs, hook)).parameters if p != "self"]
    # pluggy keeps implementations in reverse order of calling.
    return tuple(
        _Implementation(impl.plugin_name, _taking(impl.function, impl.argnames, declared))
        for impl in reversed(getattr(manager.hook, hook).get_hookimpls())
    )


def _taking(function: Callable[..., Any], accepted: Iterable[str], declared: list[str]) -> Callable[..., Any]:
    """The function, called with all arguments of the hook although it accepts only some of them."""
    if list(accepted) == declared:
        return function
    positions = [declared.index(name) for name in accepted]
    return lambda *arguments: function(*(arguments[position] for position in positions))


def _has(implementations: tuple[_Implementation, ...], plugin: str) -> bool:
    return any(implementation.plugin == plugin for implementation in implementations)
