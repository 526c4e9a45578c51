"""Provides models from named OpenAI-compatible servers, called upstreams.

Without a configured or detected upstream it provides no models, and the next plugin may do so.
"""

import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway_core import (
    SUSPICIOUS,
    AgentEntry,
    Catalog,
    Check,
    ConfigError,
    Gateway,
    Measurement,
    Problems,
    RunContext,
    did_you_mean,
    hookimpl,
    json_response,
)
from gateway_plugins.upstreams.settings import HOSTED_TOOLS, Settings

if TYPE_CHECKING:
    from agents import ModelProvider, Tool
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from gateway_plugins.upstreams.provider import UpstreamProvider

logger = logging.getLogger(__name__)


class Upstreams:
    """The plugin `upstreams`."""

    Config = Settings
    skip_for = ("check", "offline")

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        _check(config)
        self._gateway = gateway
        self._config = config
        self._provider: UpstreamProvider | None = None
        self._reason = "not started"
        self._reported: set[tuple[str, str]] = set()

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Select the upstreams, list their models, and hold their connections."""
        # Importing the SDK takes a second; commands that do not serve avoid it.
        from gateway_plugins.upstreams.discovery import discover
        from gateway_plugins.upstreams.provider import UpstreamProvider

        for name, upstream in self._config.upstreams.items():
            if not urlsplit(upstream.base_url).path.strip("/"):
                self._gateway.report(
                    ConfigError(
                        f"has no path: {upstream.base_url}",
                        source=f"[plugins.upstreams.{name}] base_url",
                        hint=f'most servers have the API at "{upstream.base_url.rstrip("/")}/v1"',
                        code=SUSPICIOUS,
                    )
                )
        selection = await discover(self._config.upstreams, probe=self._config.probe)
        self._reason = selection.reason
        if not selection.upstreams:
            yield
            return
        default = self._config.default or next(iter(selection.upstreams))
        async with UpstreamProvider.open(selection.upstreams, default) as provider:
            self._provider = provider
            with _environment(provider.environment()), provider.as_sdk_default():
                yield
            self._provider = None

    @hookimpl
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """Return the models of the upstreams, or `None` without an upstream."""
        return self._provider.for_agent(entry.id) if self._provider is not None else None

    @hookimpl
    def substitutes(self, tool: "Tool", entry: AgentEntry) -> Iterable[str]:
        """Return the substitutes that any upstream configures for the tool."""
        every = (upstream.substitutes.get(tool.name) for upstream in self._config.upstreams.values())
        return dict.fromkeys(name for name in every if name is not None)

    @hookimpl
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Log what an agent has and its upstream does not support."""
        provider = self._provider
        if provider is None:
            return
        for name, table in self._gateway.config.agents.items():
            if table.model is not None and (name, table.model) not in self._reported:
                self._report_unknown_model(provider, name, table.model)
        for served in catalog.agents.values():
            own = self._gateway.config.agent(served.id).model
            for agent in served.runnable.agents:
                if own is not None or agent.model is None or isinstance(agent.model, str):
                    provider.note_unsupported(served.id, own or agent.model or served.model, agent)

    def _report_unknown_model(self, provider: "UpstreamProvider", agent: str, model: str) -> None:
        route = provider.route(model)
        if route.found:
            return
        self._reported.add((agent, model))
        error = ConfigError(
            f"no upstream has the model '{model}'; {route.model} of upstream {route.upstream} is used instead",
            source=f"[agents.{agent}] model",
            hint=did_you_mean(model, provider.model_names()),
            code="no_such_model",
        )
        self._gateway.report(error)

    @hookimpl
    async def readiness(self) -> Iterable[Check]:
        """Check whether an upstream is reachable."""
        provider = self._provider
        return [] if provider is None else [Check("upstream", await provider.health.any_reachable())]

    @hookimpl
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """Return the route `/admin/upstreams`."""
        from starlette.routing import Route

        async def upstreams(_: "Request") -> "Response":
            """List the upstreams, their models, and whether they are reachable."""
            if self._provider is not None:
                await self._provider.health.any_reachable()
            return json_response(self._facts())

        return [Route("/admin/upstreams", upstreams)]

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Yield the call counters of each upstream, and whether it was reachable at the last health check."""
        provider = self._provider
        if provider is not None:
            yield from provider.measurements()
        for name, check in list(provider.health.checks.items()) if provider is not None else ():
            yield Measurement(
                "agent_gateway.upstream.reachable",
                int(check.reachable),
                "1",
                "Whether an upstream was reachable at the last health check (1) or not (0).",
                {"upstream": name},
            )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the upstreams, and the reason for their selection."""
        facts = self._facts()
        for name, upstream in facts["upstreams"].items():
            if upstream["default"]:
                text = f"{name} ({upstream['base_url']}), model {upstream['default_model']}; {self._reason}"
                return {"banner": {"upstream": text}, **facts}
        return {"banner": {"detection": self._reason}, **facts}

    def _facts(self) -> dict[str, Any]:
        provider = self._provider
        return {"reason": self._reason, "upstreams": provider.describe() if provider is not None else {}}


def _check(config: Settings) -> None:
    problems = Problems()
    with problems.collected():
        if config.default is not None and config.default not in config.upstreams:
            known = did_you_mean(config.default, config.upstreams)
            raise ConfigError(
                f"unknown upstream '{config.default}'",
                source="[plugins.upstreams] default",
                hint=f"{known}; or add a table [plugins.upstreams.{config.default}]",
            )
    for name in config.upstreams:
        with problems.collected():
            _check_upstream(name, config)
    problems.raise_found()


def _check_upstream(name: str, config: Settings) -> None:
    upstream = config.upstreams[name]
    table = f"[plugins.upstreams.{name}]"
    for hosted in upstream.substitutes:
        if hosted not in HOSTED_TOOLS:
            raise ConfigError(
                f"unknown hosted tool '{hosted}'",
                source=f"{table} substitutes",
                hint=did_you_mean(hosted, HOSTED_TOOLS),
            )
    seen = [name]
    while (following := config.upstreams[seen[-1]].fallback) is not None:
        if following not in config.upstreams:
            raise ConfigError(
                f"unknown upstream '{following}'",
                source=f"[plugins.upstreams.{seen[-1]}] fallback",
                hint=did_you_mean(following, config.upstreams),
            )
        if following in seen:
            raise ConfigError(f"the fallbacks of '{name}' form a cycle", source=f"{table} fallback")
        seen.append(following)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set missing environment variables within the block, so that a module's own OpenAI client uses the upstream."""
    added = {name: value for name, value in variables.items() if not os.environ.get(name)}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
