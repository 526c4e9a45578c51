"""The questions and announcements that plugins may answer: nouns contribute, verbs ask, `on_*` announces.

This module only declares; how the answers are combined is in `hooks/dispatch.py`. In every hook the same word means the
same thing: `entry` is an `AgentEntry`, `run` a `RunContext`, `error` a `GatewayError`. An implementation may
leave out arguments that it does not need. Whether a hook is `async def` or `def` is part of its contract.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

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
    """What a plugin's constructor receives beside its configuration: all of the gateway that a plugin may use."""

    @property
    def catalog(self) -> Catalog:
        """The agents served at this moment."""

    async def reload(self) -> Catalog:
        """Read the configuration again, discover again, load what changed, and swap the catalog, which is returned."""

    def report(self, error: GatewayError) -> None:
        """Announce an error of the plugin's own to every plugin's `on_error`."""

    def measurements(self) -> "list[Measurement]":
        """What the core and all plugins measure at this moment. May be called in any thread."""

    def audit_findings(self, context: AuditContext) -> list[Finding]:
        """Return the audit findings of all plugins. Blocks while they read files."""

    def state_folder(self, *, create: bool = True) -> Path | None:
        """The folder for what must outlive the process, for the gateway's user alone; `None` when nothing is kept.

        Args:
            create: Make it if it is not there. A gateway that has nothing to keep yet makes no folder.

        Raises:
            ConfigError: It cannot be made.
        """


class RecordStore(Protocol):
    """Keeps small records, each for its owner alone, for a time."""

    async def put(self, kind: str, key: str, owner: str, value: bytes, *, seconds: float | None) -> None:
        """Keep a record, over one of the same kind, key and owner.

        Args:
            kind: What it is, such as `response`.
            key: Its name among its kind.
            owner: The id of the principal that it belongs to.
            value: What to keep.
            seconds: How long; `None` for ever.
        """

    async def get(self, kind: str, key: str, owner: str) -> bytes | None:
        """The record; `None` when there is none, it is another owner's, or its time is over."""

    async def delete(self, kind: str, key: str, owner: str) -> bool:
        """Forget a record. Returns whether it was there."""


class Hookspecs:
    """All hooks. Each says when it is asked and what becomes of several plugins' answers."""

    @hookspec
    def routes(self) -> "Iterable[BaseRoute]":
        """HTTP routes to add. Asked once, at start; concatenated."""

    @hookspec
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """HTTP routes that only an admin principal gets through to. Asked once, at start; concatenated."""

    @hookspec
    def middleware(self) -> "Iterable[Middleware]":
        """ASGI middleware around all routes. Asked once, at start; concatenated, the first one outermost."""

    @hookspec
    def commands(self) -> "Iterable[click.Command]":
        """Commands to add to `agent-gateway`. Asked when the command line needs them; concatenated. Groups of the same
        name are merged; at most one of them has a callback, and it provides the options and the help text."""

    @hookspec
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """A resource to hold while the gateway runs. Entered at start before agents load; left in reverse order."""

    @hookspec
    def describe(self) -> Mapping[str, Any]:
        """Facts for operators, as JSON, without secrets. Asked by the admin pages and the command line."""

    @hookspec
    def measurements(self) -> Iterable[Measurement]:
        """Numbers for operators' dashboards, of the same names each time. Asked at start and whenever metrics are
        collected, in any thread; concatenated."""

    @hookspec
    def audit_findings(self, context: AuditContext) -> Iterable[Finding]:
        """Return findings about the audited configuration. Called by `agent-gateway audit`. The results are
        concatenated. An exception becomes the finding `audit_check_failed` with its type."""

    @hookspec
    def trace_processors(self) -> "Iterable[TracingProcessor]":
        """Who hears of the Agents SDK's traces and spans. Asked once, at start; concatenated. One that raises is
        logged, and the run goes on. Every gateway in the process hears of all traces."""

    @hookspec
    def discover_agents(self) -> Iterable[AgentEntry]:
        """The agents there are. Asked at start and at each reload, in a worker thread; concatenated. The first
        entry with an id wins, and the other is reported."""

    @hookspec
    def watch_paths(self) -> Iterable[Path]:
        """Folders and files whose change is a reason to reload. Asked after each discovery; concatenated."""

    @hookspec
    def admit_agent(self, entry: AgentEntry) -> None:
        """May this agent be imported? Asked before each load, in a worker thread, when nothing of it has run yet. Every
        plugin is asked; the first that raises, a `LoadError`, keeps the agent out."""

    @hookspec
    def extra_tools(self, entry: AgentEntry) -> "Iterable[Tool]":
        """Tools to add to an agent. Asked when an agent is equipped; concatenated."""

    @hookspec
    def substitutes(self, tool: "Tool", entry: AgentEntry) -> Iterable[str]:
        """The names of gateway tools that can do the work of a hosted tool, which only some servers run. Asked when an
        agent is equipped; concatenated. They are put beside it, and whoever provides models leaves out either."""

    @hookspec
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> "Tool | None":
        """Look at one tool of an agent, its handoff targets or its agents-as-tools, and return it, changed or
        another one; `None` leaves it as it is. Asked when an agent is equipped; folded: each plugin gets the
        last one's result. For a tool that is made for one turn, such as an MCP server's, it is asked when that is
        first called, and can then only be changed in place."""

    @hookspec
    async def authenticate(self, request: "Request") -> Principal | None:
        """Who asks? Asked on each request; the first answer counts. Raise `AuthenticationError` on a bad credential."""

    @hookspec
    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """May this principal make this request at all? Asked on each request of an API or admin page, when it is known
        who asks. All plugins with an opinion must agree, an exception refuses, silence allows; the client is told the
        reason of a refusal."""

    @hookspec
    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision | None:
        """May this principal use this agent? Asked on each request and for each model in a list. All plugins with an
        opinion must agree; silence refuses, an exception refuses. With no plugin that implements it and guards, the
        gateway serves loopback only, and there silence allows. A plugin that does not guard yet says so by an
        attribute `guards` that is false."""

    @hookspec
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """May this run call this tool? Asked on each call. All plugins with an opinion must agree, an exception
        refuses; where none has an opinion, `tool.open` holds."""

    @hookspec
    def offer_tools(self) -> "Iterable[Tool]":
        """Function tools that agents may use by name. Asked at start and at each reload, after `discover_agents`;
        concatenated, the first of a name wins."""

    @hookspec
    def session(self, run: RunContext, entry: AgentEntry) -> "Session | None":
        """The SDK session in which an agent that asks for one remembers the run's chat. The first answer counts."""

    @hookspec
    def record_store(self) -> RecordStore | None:
        """Where the gateway keeps records such as stored responses. Asked once, at start; the first answer counts."""

    @hookspec
    def background_task(
        self, entry: AgentEntry, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """Is this request one that a UI makes by itself, such as for a title? Then no agent runs. Asked on each request
        of a chat or a response, with its headers and its messages (or input items) as they were sent; the first answer
        counts."""

    @hookspec
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """Where this run's models come from. Asked once a run; the first answer counts."""

    @hookspec
    def admission(self, run: RunContext, entry: AgentEntry) -> AbstractAsyncContextManager[None] | None:
        """What a run needs before it may start, such as a place among those that run at a time. Asked once a run. All
        are entered in order, left in reverse when the run is over; entering refuses by raising a `GatewayError`."""

    @hookspec
    async def readiness(self) -> Iterable[Check]:
        """What the plugin needs for its work, and whether it is well. Asked at each `/readyz`; concatenated. The
        gateway is not ready while something needed is not well."""

    @hookspec
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """A catalog was built, at start or by a reload, and is served; it is the last one again when nothing changed.
        `watched` are all plugins' `watch_paths`, and the `gateway.toml`. Every plugin hears it; one that raises is
        logged, and the rest go on."""

    @hookspec
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """A run ended, well or not. Every plugin hears it; one that raises is logged, and the rest go on."""

    @hookspec
    def on_model_end(self, call: ModelCall) -> None:
        """A model's call ended, well or not. Every plugin hears it; one that raises is logged, and the rest go on."""

    @hookspec
    def on_tool_end(self, call: ToolCall) -> None:
        """A tool call ended, well or not, or was refused. Every plugin hears it; one that raises is logged."""

    @hookspec
    def on_decision(self, made: DecisionMade) -> None:
        """A decision took effect. Every plugin hears it; one that raises is logged, and the rest go on."""

    @hookspec
    def on_error(self, error: GatewayError) -> None:
        """Something failed. Every plugin hears it once; one that raises is logged, and the rest go on."""
