"""Calls the hook implementations of plugins and combines their results: one typed method for each hook.

No other module calls hooks through pluggy. Each hook is resolved once to a tuple of functions, so that dispatch has no
overhead. pluggy's `firstresult` is not used: it would take the first coroutine as a result, and a later denial would be
ignored.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from gateway_core.config.problems import Problems
from gateway_core.config.values import did_you_mean
from gateway_core.errors import ConfigError, GatewayError, PluginError, UnavailableError, gateway_error_in
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
"""Timeout of asynchronous hooks. A decision that times out is a denial."""

OPEN = Decision(True, "open", reason="no plugin controls access")


class _Implementation(NamedTuple):
    plugin: str
    call: Callable[..., Any]


class Hooks:
    """Dispatches hooks to the plugins of a gateway.

    Args:
        plugins: Plugin objects by name, in the order of calling.

    Raises:
        PluginError: A plugin implements an unknown hook, or violates a hook's contract.
    """

    def __init__(self, plugins: Mapping[str, object]) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hookspecs)
        # pluggy calls plugins in reverse order of registration.
        for name, plugin in reversed(list(plugins.items())):
            _register(manager, name, plugin)
        self._implementations = {name: _resolve(manager, name) for name in hook_names()}
        self._plugins = tuple(plugins.values())
        # The attribute `guards` of a plugin may change at run time, so it is read on each use.
        self._guards = [plugins[each.plugin] for each in self._implementations["authorize"]]
        self._names = {plugin: [h for h, i in self._implementations.items() if _has(i, plugin)] for plugin in plugins}

    def implemented_by(self, plugin: str) -> list[str]:
        """Return the names of the hooks that a plugin implements."""
        return self._names.get(plugin, [])

    @property
    def guarded(self) -> bool:
        """Whether a plugin controls access to agents. Without one, the gateway is open."""
        return any(getattr(plugin, "guards", True) for plugin in self._guards)

    @property
    def access_hint(self) -> str:
        """A hint to protect an open gateway: the attribute `access_hint` of the first plugin that has one."""
        hints = (getattr(plugin, "access_hint", None) for plugin in self._plugins)
        return next(filter(None, hints), "enable a plugin that implements `authorize`")

    def create_first_key(self) -> str:
        """Create a key for an open gateway and store it, by the first plugin with a method of this name.

        Returns:
            The message for the operator, with the key.

        Raises:
            ConfigError: No plugin creates keys, or the key cannot be stored.
        """
        creators = (getattr(plugin, "create_first_key", None) for plugin in self._plugins)
        create: Callable[[], str] | None = next(filter(None, creators), None)
        if create is None:
            raise ConfigError("no plugin that is enabled creates keys", source="--create-key", hint=self.access_hint)
        return create()

    @property
    def has_tool_policy(self) -> bool:
        """Whether a plugin controls tool calls. Without one, the default of each tool applies."""
        return bool(self._implementations["authorize_tool"])

    @property
    def has_tool_observers(self) -> bool:
        """Whether a plugin implements `on_tool_end`."""
        return bool(self._implementations["on_tool_end"])

    @property
    def has_model_observers(self) -> bool:
        """Whether a plugin implements `on_model_end`."""
        return bool(self._implementations["on_model_end"])

    def routes(self) -> "list[BaseRoute]":
        """Return the concatenated results."""
        return self._concatenate("routes")

    def admin_routes(self) -> "list[BaseRoute]":
        """Return the concatenated results."""
        return self._concatenate("admin_routes")

    def middleware(self) -> "list[Middleware]":
        """Return the concatenated results. The first item is the outermost."""
        return self._concatenate("middleware")

    def commands(self) -> "dict[str, click.Command]":
        """Return the commands by name, with groups of the same name merged.

        Raises:
            PluginError: Two plugins define the same command.
        """
        from gateway_core.hooks.command_groups import Offer, merge_commands

        return merge_commands(Offer(plugin, command.name or "", command) for plugin, command in self._commands())

    def _commands(self) -> "Iterator[tuple[str, click.Command]]":
        for plugin, call in self._implementations["commands"]:
            try:
                yield from ((plugin, command) for command in call())
            except GatewayError:
                raise
            except Exception as error:
                raise plugin_failure("failed in commands", plugin, error) from error

    @asynccontextmanager
    async def lifespans(self, problems: Problems | None = None) -> AsyncIterator[None]:
        """Enter the context managers of the plugins, in their order, and exit them in reverse order.

        Args:
            problems: Collects the errors of plugins that cannot start, instead of raising the first one.

        Raises:
            GatewayError: A plugin cannot start, or failed at shutdown.
        """
        found = Problems() if problems is None else problems
        async with AsyncExitStack() as stack:
            for plugin, call in self._implementations["lifespan"]:
                with found.collected():
                    stack.push_async_exit(await _enter(plugin, call))
                if problems is None:
                    found.raise_found()
            yield

    def describe(self) -> dict[str, Mapping[str, Any]]:
        """Return the results by plugin. For a plugin that raises, the result is the type of the exception."""
        facts: dict[str, Mapping[str, Any]] = {}
        for plugin, call in self._implementations["describe"]:
            try:
                facts[plugin] = call()
            except Exception as error:
                logger.exception("plugin %s failed in describe", plugin)
                facts[plugin] = {"error": type(error).__name__}
        return facts

    async def readiness(self) -> list[Check]:
        """Return the concatenated results. A plugin that fails is logged and does not affect readiness."""
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
        """Return the concatenated results. A plugin that raises is logged and skipped."""
        found: list[Measurement] = []
        for plugin, call in self._implementations["measurements"]:
            try:
                found.extend(call())
            except Exception:
                logger.exception("plugin %s failed in measurements", plugin)
        return found

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the concatenated findings. An exception becomes a finding with the plugin and the type."""
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
        """Return the concatenated results."""
        return self._concatenate("trace_processors")

    def discover_agents(self, report: Callable[[GatewayError], None]) -> list[AgentEntry]:
        """Return the concatenated results. If a plugin raises, it is skipped and its error passed to `report`."""
        entries: list[AgentEntry] = []
        for plugin, call in self._implementations["discover_agents"]:
            try:
                entries.extend(call())
            except Exception as error:
                report(_as_plugin_error(error, plugin, "discover_agents"))
        return entries

    def watch_paths(self) -> list[Path]:
        """Return the concatenated results. A plugin that raises is logged and skipped."""
        paths: list[Path] = []
        for plugin, call in self._implementations["watch_paths"]:
            try:
                paths.extend(call())
            except Exception:
                logger.exception("plugin %s failed in watch_paths", plugin)
        return paths

    def admit_agent(self, entry: AgentEntry) -> list[str]:
        """Return the concatenated notes. The first exception rejects the agent and is propagated."""
        return [note for _, call in self._implementations["admit_agent"] for note in call(entry) or ()]

    def substitutes(self, tool: "Tool", entry: AgentEntry) -> list[str]:
        """Return the concatenated results."""
        return self._concatenate("substitutes", tool, entry)

    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> "Tool":
        """Return the tool after all plugins. Each plugin receives the result of the previous one."""
        for _, call in self._implementations["wrap_tool"]:
            tool = call(tool, entry) or tool
        return tool

    async def authenticate(self, request: "Request") -> Principal | None:
        """Return the first result that is not `None`.

        Raises:
            UnavailableError: A plugin timed out, so the caller cannot be identified.
        """
        for plugin, call in self._implementations["authenticate"]:
            principal: Principal | None = None
            try:
                async with asyncio.timeout(HOOK_SECONDS) as limit:
                    principal = await call(request)
            except TimeoutError:
                if not limit.expired():
                    raise
                logger.error("plugin %s timed out in authenticate after %g s", plugin, HOOK_SECONDS)
                raise UnavailableError("authentication is temporarily unavailable", retry_after=5) from None
            if principal is not None:
                return principal
        return None

    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """Return the combined decision, or `None` if every plugin abstains. An exception denies."""
        return await self._agree("authorize_request", principal, request)

    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision:
        """Return the combined decision. An exception denies. If every plugin abstains, a guarded gateway denies."""
        decision = await self._agree("authorize", principal, entry)
        if decision is not None:
            return decision
        return Decision(False, "silence", reason="no policy allows it") if self.guarded else OPEN

    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision:
        """Return the combined decision. An exception denies. If every plugin abstains, `tool.open` decides."""
        decision = await self._agree("authorize_tool", run, tool)
        return decision or Decision(tool.open, "default", reason=None if tool.open else "no policy allows it")

    def offer_tools(self, report: Callable[[GatewayError], None]) -> "list[Tool]":
        """Return the concatenated results. If a plugin raises, it is skipped and its error passed to `report`."""
        tools: list[Tool] = []
        for plugin, call in self._implementations["offer_tools"]:
            try:
                tools.extend(call())
            except Exception as error:
                report(_as_plugin_error(error, plugin, "offer_tools"))
        return tools

    def explain_missing_tool(self, name: str) -> str | None:
        """Return the first result that is not `None`."""
        found: str | None = self._first("explain_missing_tool", name)
        return found

    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """Return the first result that is not `None`."""
        found: Session | None = self._first("session", run, entry)
        return found

    def record_store(self) -> RecordStore | None:
        """Return the first result that is not `None`."""
        found: RecordStore | None = self._first("record_store")
        return found

    def background_task(
        self, entry: AgentEntry, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """Return the first result that is not `None`."""
        found: BackgroundTask | None = self._first("background_task", entry, headers, messages, stream)
        return found

    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """Return the first result that is not `None`."""
        found: ModelProvider | None = self._first("model_provider", run, entry)
        return found

    def admissions(self, run: RunContext, entry: AgentEntry) -> list[AbstractAsyncContextManager[None]]:
        """Return the context managers of the plugins, in the order of entry."""
        answers = (call(run, entry) for _, call in self._implementations["admission"])
        return [admission for admission in answers if admission is not None]

    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_catalog", catalog, watched)

    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_run_end", run, outcome)

    def on_model_end(self, call: ModelCall) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_model_end", call)

    def on_tool_end(self, call: ToolCall) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_tool_end", call)

    def on_decision(self, made: DecisionMade) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_decision", made)

    def on_error(self, error: GatewayError) -> None:
        """Notify every plugin. Exceptions are logged."""
        self._announce("on_error", error)

    def _first(self, hook: str, *arguments: Any) -> Any:
        for _, call in self._implementations[hook]:
            answer = call(*arguments)
            if answer is not None:
                return answer
        return None

    async def _agree(self, hook: str, *arguments: Any) -> Decision | None:
        """Return the first denial, else the first permission, else `None`. An exception or a timeout is a denial."""
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
        items: list[Any] = []
        for plugin, call in self._implementations[hook]:
            try:
                items.extend(call(*arguments))
            except GatewayError:
                raise
            except Exception as error:
                logger.debug("plugin %s failed in %s", plugin, hook, exc_info=True)
                raise plugin_failure(f"failed in {hook}", plugin, error) from error
        return items

    def _announce(self, hook: str, *arguments: Any) -> None:
        for plugin, call in self._implementations[hook]:
            try:
                call(*arguments)
            except Exception:
                logger.exception("plugin %s failed in %s", plugin, hook)


def hook_names() -> list[str]:
    """Return the names of all hooks, in the order of declaration."""
    return [name for name, value in vars(Hookspecs).items() if not name.startswith("_") and callable(value)]


async def _enter(
    plugin: str, call: Callable[[], AbstractAsyncContextManager[None]]
) -> Callable[..., Awaitable[bool | None]]:
    """Enter the context manager of a plugin, and return the function that exits it."""
    with _as_failure("cannot be started", plugin):
        context = call()
        await context.__aenter__()

    async def leave(*details: Any) -> bool | None:
        with _as_failure("failed at shutdown", plugin):
            return await context.__aexit__(*details)

    return leave


@contextmanager
def _as_failure(message: str, plugin: str) -> Iterator[None]:
    """Convert what a plugin raises to a `GatewayError`, also if it exits the process or cancels itself."""
    try:
        yield
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # the gateway is stopping
        logger.debug("plugin %s %s", plugin, message, exc_info=True)
        raise gateway_error_in(error) or plugin_failure(message, plugin, error) from None


def plugin_failure(message: str, plugin: str, error: BaseException | None = None) -> PluginError:
    """Return the error, on one line, of a plugin that raises an exception that is not a `GatewayError`."""
    reason = f": {' '.join(f'{type(error).__name__}: {error}'.split())}" if error is not None else ""
    table = plugin.partition(" ")[0]
    hint = f"fix the plugin or its settings in [plugins.{table}], or disable it there with enabled = false"
    failure = PluginError(f"{message}{reason}", source=f"plugin {plugin}", hint=hint)
    failure.__cause__ = error
    return failure


def _as_plugin_error(error: Exception, plugin: str, hook: str) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    wrapped = PluginError(f"failed in {hook}: {type(error).__name__}: {error}", source=f"plugin {plugin}")
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
                f"unknown hook '{hook.name}'", source=f"plugin {name}", hint=did_you_mean(hook.name, hook_names())
            )
        wanted = inspect.iscoroutinefunction(declared)
        if inspect.iscoroutinefunction(getattr(plugin, hook.name)) is not wanted:
            raise PluginError(
                f"the hook '{hook.name}' must be defined with `{'async def' if wanted else 'def'}`",
                source=f"plugin {name}",
            )


def _resolve(manager: pluggy.PluginManager, hook: str) -> tuple[_Implementation, ...]:
    declared = [p for p in inspect.signature(getattr(Hookspecs, hook)).parameters if p != "self"]
    # pluggy stores implementations in reverse order of calling.
    return tuple(
        _Implementation(impl.plugin_name, _taking(impl.function, impl.argnames, declared))
        for impl in reversed(getattr(manager.hook, hook).get_hookimpls())
    )


def _taking(function: Callable[..., Any], accepted: Iterable[str], declared: list[str]) -> Callable[..., Any]:
    """Adapt a function that accepts only some arguments of the hook, so that it can be called with all of them."""
    if list(accepted) == declared:
        return function
    positions = [declared.index(name) for name in accepted]
    return lambda *arguments: function(*(arguments[position] for position in positions))


def _has(implementations: tuple[_Implementation, ...], plugin: str) -> bool:
    return any(implementation.plugin == plugin for implementation in implementations)
