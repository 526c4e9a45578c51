"""Declares the hooks that plugins implement, and the protocols of the objects that plugins receive or provide.

Naming: a noun contributes objects, a verb requests an action or a decision, and `on_*` is a notification.
`hooks/dispatch.py` calls the implementations and combines their results. Argument names have the same type in every
hook: `entry` is an `AgentEntry`, `run` a `RunContext`, `error` a `GatewayError`. An implementation may omit arguments
that it does not use. It must use `async def` or `def` as declared here.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from gateway_core.config.settings import Config
from gateway_core.errors import GatewayError
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

PROJECT = "agent_gateway"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Gateway(Protocol):
    """The interface of the gateway for plugins. The constructor of a plugin receives it with the plugin's settings."""

    @property
    def config(self) -> Config:
        """The current settings of the core."""

    @property
    def catalog(self) -> Catalog:
        """The current catalog."""

    async def reload(self) -> Catalog:
        """Reload the configuration, discover agents, load the changed ones, and return the new catalog."""

    def report(self, error: GatewayError) -> None:
        """Log an error of the plugin and announce it through `on_error`."""

    def measurements(self) -> "list[Measurement]":
        """Return the current measurements of the core and of all plugins. Thread-safe."""

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the audit findings of all plugins. Blocks while they read files."""

    def state_folder(self, *, create: bool = True) -> Path | None:
        """Return the state directory, accessible to the gateway's user only, or `None` if persistence is disabled.

        Args:
            create: Create the directory if it does not exist. Pass `False` to read existing state only.

        Raises:
            ConfigError: The directory cannot be created.
        """


class RecordStore(Protocol):
    """Stores small records with an expiry. Only the owner of a record can read it."""

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Store a record. It replaces a record with the same kind, key and owner.

        Args:
            kind: The kind of the record, such as `response`.
            key: The name of the record, unique per kind and owner.
            owner: The id of the principal that owns the record.
            value: The content.
            seconds: The lifetime, or `None` for no expiry.

        Raises:
            GatewayError: The record cannot be stored; the methods of a store raise no other exceptions.
        """

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """Return a record, or `None` if it does not exist, has expired, or has a different owner."""

    async def touch(self, kind: str, keys: Iterable[str], owner: str, *, seconds: float | None) -> None:
        """Renew the lifetime of existing records, as if they were stored again."""

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Delete a record. Return whether it existed."""

    async def keys(self, kind: str, owner: str) -> Sequence[str]:
        """Return the keys of an owner's records of one kind, sorted, without those that have expired."""


class Hookspecs:
    """All hooks. Each docstring states when the hook is called and how the results are combined."""

    @hookspec
    def routes(self) -> "Iterable[BaseRoute]":
        """Return HTTP routes to add. Called once at startup. The results are concatenated."""

    @hookspec
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """Return HTTP routes that only admin principals can access. Called once at startup. The results are
        concatenated."""

    @hookspec
    def middleware(self) -> "Iterable[Middleware]":
        """Return ASGI middleware that wraps all routes. Called once at startup. The results are concatenated; the first
        item is the outermost."""

    @hookspec
    def commands(self) -> "Iterable[click.Command]":
        """Return commands to add to `agent-gateway`. Called by the command line when it lists commands or looks one up.
        The results are concatenated. Groups of the same name are merged; at most one of them has a callback, and it
        provides the options and the help text."""

    @hookspec
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager for a resource of the plugin. Called once at startup. The gateway enters it before
        agents load, and exits all of them in reverse order at shutdown. An exception on entry aborts the startup, with
        exit status 78 if it is a `ConfigError`. `agent-gateway config --check` enters and exits it."""

    @hookspec
    def describe(self) -> Mapping[str, Any]:
        """Return facts for operators as JSON-serializable values, without secrets. Called by the admin pages and the
        command line. The results are grouped by plugin. An exception is logged, and only its type is shown. `serve`
        prints the value of the key `banner`, a mapping of labels to texts; of a label's texts, it prints the first."""

    @hookspec
    def measurements(self) -> Iterable[Measurement]:
        """Return the current values of metrics. Every call must return the same metric names. Called at startup and at
        every collection of metrics, in any thread. The results are concatenated. An exception is logged, and the
        plugin's metrics are omitted."""

    @hookspec
    def audit_findings(self, context: AuditContext) -> Iterable[Finding]:
        """Return findings about the audited configuration. Called by `agent-gateway audit`. The results are
        concatenated. An exception becomes the finding `audit_check_failed` with its type."""

    @hookspec
    def trace_processors(self) -> "Iterable[TracingProcessor]":
        """Return trace processors that receive the Agents SDK's traces and spans. Called once at startup. The results
        are concatenated. An exception in a processor is logged, and the run continues. A processor receives the traces
        of all gateways in the process."""

    @hookspec
    def discover_agents(self) -> Iterable[AgentEntry]:
        """Return entries of the available agents, without importing them. Called at startup and at each reload, in a
        worker thread. The results are concatenated. If several entries have the same id, the first one is served and
        the others are reported. An exception is reported, and does not affect the entries of other plugins."""

    @hookspec
    def watch_paths(self) -> Iterable[Path]:
        """Return files and folders whose changes should trigger a reload. Called after each discovery. The results are
        concatenated. An exception is logged, and does not affect the paths of other plugins."""

    @hookspec
    def admit_agent(self, entry: AgentEntry) -> Iterable[str] | None:
        """Admit or reject an agent before its code is imported. Called before each load, in a worker thread, possibly
        for several agents at once. Every plugin is called until one rejects the agent by raising a `LoadError`, which
        becomes the agent's diagnosis. The returned notes for operators are added to the warnings of the agent."""

    @hookspec
    def substitutes(self, tool: "Tool", entry: AgentEntry) -> Iterable[str]:
        """Return the names of gateway tools that can replace a hosted tool, which only some upstreams run. Called when
        the tools of an agent are bound. The results are concatenated. The substitutes are added next to the hosted
        tool, and the model provider must omit one of the two."""

    @hookspec
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> "Tool | None":
        """Wrap or modify a tool of an agent, of its handoff targets or of its agents used as tools. Called when the
        tools of an agent are bound. Each plugin receives the result of the previous one. Return the tool to use, or
        `None` to leave it unchanged. A tool that exists for one turn only, such as one of an MCP server, is passed when
        it is first called; such a tool can only be modified in place."""

    @hookspec
    async def authenticate(self, request: "Request") -> Principal | None:
        """Identify the caller. Called for each request. The first result that is not `None` is used. Raise
        `AuthenticationError` if the credential is invalid. A timeout returns 503 to the client."""

    @hookspec
    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """Decide whether a principal may make an HTTP request. Called for each request to an API or admin route, after
        authentication. `None` abstains. The request is allowed unless a plugin denies it or raises an exception. The
        client receives the reason of a denial."""

    @hookspec
    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision | None:
        """Decide whether a principal may use an agent. Called for each request, and for each model in a list. `None`
        abstains. The agent is allowed if at least one plugin allows it and no plugin denies it or raises an exception.
        A plugin that implements this hook guards the gateway, unless its attribute `guards` is false. A gateway without
        a guarding plugin listens on loopback only, and allows an agent if every plugin abstains."""

    @hookspec
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """Decide whether a run may call a tool. Called for each call. `None` abstains. A denial or an exception denies
        the call. If every plugin abstains, `tool.open` decides."""

    @hookspec
    def offer_tools(self) -> "Iterable[Tool]":
        """Return function tools that agents can use by name. Called at startup and at each reload, after
        `discover_agents`. The results are concatenated. If several tools have the same name, the first one is used. An
        exception is reported, and does not affect the tools of other plugins."""

    @hookspec
    def explain_missing_tool(self, name: str) -> str | None:
        """Return why a tool with this name or pattern, such as `mail/send` or `mail/*`, is not offered, for operators.
        The first result that is not `None` is used."""

    @hookspec
    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """Return the SDK session that stores the memory of the run's chat, for an agent with memory enabled. The first
        result that is not `None` is used."""

    @hookspec
    def record_store(self) -> RecordStore | None:
        """Return the store for the gateway's records, such as stored responses. Called once at startup. The first
        result that is not `None` is used. Default: a store in memory."""

    @hookspec
    def background_task(
        self, entry: AgentEntry, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """Recognize a background request of a chat UI, such as one for a title, which is then answered without the
        agent. Called for each chat or responses request, with its headers and its messages or input items as sent. The
        first result that is not `None` is used."""

    @hookspec
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """Return the SDK model provider for a run. Called once per run. The first result that is not `None` is used."""

    @hookspec
    def admission(self, run: RunContext, entry: AgentEntry) -> AbstractAsyncContextManager[None] | None:
        """Return a context manager that the run must enter before it starts, such as a concurrency limit. Called once
        per run. All of them are entered in order, and exited in reverse order when the run ends. Raise a `GatewayError`
        on entry to reject the run."""

    @hookspec
    async def readiness(self) -> Iterable[Check]:
        """Return the readiness checks of the plugin. Called for each request to `/readyz`. The results are
        concatenated. The gateway is not ready while a check with `needed` fails. An exception or a timeout is logged,
        and does not affect readiness."""

    @hookspec
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Called after a catalog was built, at startup or by a reload. If nothing changed, it is the previous catalog.
        `watched` contains the `watch_paths` of all plugins and the `gateway.toml`. Exceptions are logged."""

    @hookspec
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Called when a run has ended, regardless of its outcome. Exceptions are logged."""

    @hookspec
    def on_model_end(self, call: ModelCall) -> None:
        """Called when a model call has ended, regardless of its outcome. Exceptions are logged."""

    @hookspec
    def on_tool_end(self, call: ToolCall) -> None:
        """Called when a tool call has ended, regardless of its outcome, or was denied. Exceptions are logged."""

    @hookspec
    def on_decision(self, made: DecisionMade) -> None:
        """Called when an authorization decision has taken effect. Exceptions are logged."""

    @hookspec
    def on_error(self, error: GatewayError) -> None:
        """Called once for each error. Exceptions are logged."""
