"""Named OpenAI-compatible servers: where the models of the agents' runs come from.

It does not run agents. With no server configured or found it has no opinion, and the next plugin may answer.
"""

import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from gateway_core import AgentEntry, Check, ConfigError, Gateway, Measurement, RunContext, did_you_mean, hookimpl
from gateway_plugins.upstreams.settings import HOSTED_TOOLS, Settings

if TYPE_CHECKING:
    from agents import ModelProvider, Tool
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from gateway_plugins.upstreams.provider import UpstreamProvider

logger = logging.getLogger(__name__)


class Upstreams:
    """The plugin `upstreams`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if config.default is not None and config.default not in config.upstreams:
            raise ConfigError(
                f"there is no upstream '{config.default}'",
                source="[plugins.upstreams] default",
                hint=f"add a table [plugins.upstreams.{config.default}]",
            )
        _check(config)
        self._config = config
        self._provider: UpstreamProvider | None = None
        self._reason = "not started"
        self._fallbacks: dict[str, set[str]] = {}

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Choose the upstreams, ask them what they have, and hold their connections."""
        # The SDK takes a second to import; commands that serve nothing do without it.
        from gateway_plugins.upstreams.discovery import discover
        from gateway_plugins.upstreams.provider import UpstreamProvider

        choice = await discover(self._config.upstreams, probe=self._config.probe)
        self._reason = choice.reason
        if not choice.upstreams:
            yield
            return
        default = self._config.default or next(iter(choice.upstreams))
        async with UpstreamProvider.open(choice.upstreams, default) as provider:
            self._provider = provider
            with _environment(provider.environment()), provider.as_sdk_default():
                yield
            self._provider = None

    @hookimpl
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """The upstreams, if there are any."""
        return self._provider.for_agent(entry.id) if self._provider is not None else None

    @hookimpl
    def substitutes(self, tool: "Tool", entry: AgentEntry) -> Iterable[str]:
        """What any upstream has configured for it."""
        every = (upstream.substitutes.get(tool.name) for upstream in self._config.upstreams.values())
        return dict.fromkeys(name for name in every if name is not None)

    @hookimpl
    async def readiness(self) -> Iterable[Check]:
        """Whether an upstream answers."""
        provider = self._provider
        return [] if provider is None else [Check("upstream", await provider.reach.any_reachable())]

    @hookimpl
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """`/admin/upstreams`."""
        import orjson
        from starlette.responses import Response
        from starlette.routing import Route

        async def upstreams(_: "Request") -> Response:
            """Which upstreams there are, what they have, and whether they answer."""
            if self._provider is not None:
                await self._provider.reach.any_reachable()
            return Response(orjson.dumps(self.describe()), media_type="application/json")

        return [Route("/admin/upstreams", upstreams)]

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Whether each upstream answered when it was last asked, and what became of its calls."""
        provider = self._provider
        if provider is not None:
            yield from provider.measurements()
        for name, answer in list(provider.reach.answers.items()) if provider is not None else ():
            yield Measurement(
                "agent_gateway.upstream.reachable",
                int(answer.reachable),
                "1",
                "Whether an upstream answered when it was last asked.",
                {"upstream": name},
            )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Which upstreams there are, and why these."""
        provider = self._provider
        return {"reason": self._reason, "upstreams": provider.describe() if provider is not None else {}}


def _check(config: Settings) -> None:
    for name, upstream in config.upstreams.items():
        table = f"[plugins.upstreams.{name}]"
        for hosted in upstream.substitutes:
            if hosted not in HOSTED_TOOLS:
                raise ConfigError(
                    f"there is no hosted tool '{hosted}'",
                    source=f"{table} substitutes",
                    hint=did_you_mean(hosted, HOSTED_TOOLS),
                )
        seen = [name]
        while (following := config.upstreams[seen[-1]].fallback) is not None:
            if following not in config.upstreams:
                raise ConfigError(
                    f"there is no upstream '{following}'",
                    source=f"[plugins.upstreams.{seen[-1]}] fallback",
                    hint=did_you_mean(following, config.upstreams),
                )
            if following in seen:
                raise ConfigError(f"the fallbacks of '{name}' go round in a circle", source=f"{table} fallback")
            seen.append(following)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, and take them back: a module that makes its own client finds the upstream."""
    added = {name: value for name, value in variables.items() if not os.environ.get(name)}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
