"""The questions and announcements that plugins may answer: nouns contribute, verbs ask, `on_*` announces.

This module only declares; how the answers are combined is in `hooks.py`. In every hook the same word means the
same thing: `entry` is an `AgentEntry`, `run` a `RunContext`, `error` a `GatewayError`. An implementation may
leave out arguments that it does not need. Whether a hook is `async def` or `def` is part of its contract.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from gateway_core.errors import GatewayError
from gateway_core.types import AgentEntry, Catalog, Decision, Outcome, Principal, RunContext

if TYPE_CHECKING:
    import click
    from agents import ModelProvider, Tool
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
        """Discover again, load what changed, and swap the catalog. Returns the new one."""

    def report(self, error: GatewayError) -> None:
        """Announce an error of the plugin's own to every plugin's `on_error`."""


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
        """Commands to add to `agent-gateway`. Asked when the command line needs them; concatenated."""

    @hookspec
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """A resource to hold while the gateway runs. Entered at start before agents load; left in reverse order."""

    @hookspec
    def describe(self) -> Mapping[str, Any]:
        """Facts for operators, as JSON, without secrets. Asked by the admin pages and the command line."""

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
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> "Tool | None":
        """Look at one tool of an agent, its handoff targets or its agents-as-tools, and return it, changed or
        another one; `None` leaves it as it is. Asked when an agent is equipped; folded: each plugin gets the
        last one's result."""

    @hookspec
    async def authenticate(self, request: "Request") -> Principal | None:
        """Who asks? Asked on each request; the first answer counts. Raise `AuthenticationError` on a bad credential."""

    @hookspec
    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision | None:
        """May this principal use this agent? Asked on each request and for each model in a list. All plugins with an
        opinion must agree; silence refuses, an exception refuses. With no plugin that implements it the gateway is
        open, and then serves loopback only."""

    @hookspec
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """Where this run's models come from. Asked once a run; the first answer counts."""

    @hookspec
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """A run ended, well or not. Every plugin hears it; one that raises is logged, and the rest go on."""

    @hookspec
    def on_error(self, error: GatewayError) -> None:
        """Something failed. Every plugin hears it once; one that raises is logged, and the rest go on."""
