"""Provides models that use the upstreams' pooled clients.

Each upstream has one client per process, and model objects are cached, because the SDK requests one at every turn.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from agents import Agent, Model, ModelProvider, set_default_openai_api, set_default_openai_client
from agents.models import _openai_shared

from gateway_core import Measurement, UpstreamError
from gateway_plugins.upstreams.circuit_breaker import KINDS, CircuitBreaker
from gateway_plugins.upstreams.client import UpstreamClient
from gateway_plugins.upstreams.failover import UpstreamModel
from gateway_plugins.upstreams.health import UpstreamHealth
from gateway_plugins.upstreams.hosted_tools import HostedTools
from gateway_plugins.upstreams.models import Choice
from gateway_plugins.upstreams.routing import Route, Router
from gateway_plugins.upstreams.settings import Upstream

logger = logging.getLogger(__name__)


class UpstreamProvider:
    """The open upstreams of one gateway. Use `open` to create it."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        clients: Mapping[str, UpstreamClient],
        default: str,
    ) -> None:
        self._upstreams = upstreams
        self._clients = clients
        self._default = default
        self._listed: dict[str, Sequence[str]] = {}
        self._router = Router(upstreams, default, self._listed)
        self.health = UpstreamHealth(clients, self._update_models)
        self._models: dict[tuple[tuple[Route, ...], str], UpstreamModel] = {}
        self._dropped: dict[str, set[str]] = {}
        self._substituted: dict[str, set[str]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, upstreams: Mapping[str, Upstream], default: str) -> AsyncIterator["UpstreamProvider"]:
        """Create the clients, and list the models of each upstream. Unreachable upstreams are kept."""
        async with AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(UpstreamClient(upstream)) for name, upstream in upstreams.items()
            }
            provider = cls(upstreams, clients, default)
            await provider.health.check_all()
            for name, check in provider.health.checks.items():
                if check.problem is not None:
                    logger.warning("could not list the models of upstream %s: %s", name, check.problem)
            stack.push_async_callback(provider.health.close)
            yield provider

    def for_agent(self, agent_id: str) -> ModelProvider:
        """Return the model provider for an agent's runs."""
        return _AgentModelProvider(self, agent_id)

    def note_unsupported(self, agent_id: str, name: str | None, agent: Agent[Any]) -> None:
        """Log what an agent has and its upstream does not support, before the first request finds out.

        Args:
            agent_id: Id of the served agent.
            name: The name of the agent's model, if any.
            agent: The served agent, or another one that its runs can reach.
        """
        choice = self.model(name, agent_id).preferred
        try:
            choice.hosted.runnable(agent.tools)
        except UpstreamError as error:
            logger.warning("agent %s cannot run: %s", agent_id, error)
        if agent.prompt is not None and choice.chat:
            logger.warning(
                "agent %s runs without its prompt template, which is not available at upstream %s",
                agent_id,
                choice.upstream,
            )

    def model(self, name: str | None, agent_id: str) -> UpstreamModel:
        """Resolve a model name. A substituted model is logged once for each agent."""
        route = self._router.route(name)
        if not route.found and name is not None:
            self._note_substitution(agent_id, name, route)
        routes = (route, *self._fallbacks(route, name))
        model = self._models.get((routes, agent_id))
        if model is None:
            model = UpstreamModel([self._choice(each, agent_id) for each in routes])
            self._models[routes, agent_id] = model
        return model

    def route(self, name: str) -> Route:
        """Resolve a model name to an upstream and its model."""
        return self._router.route(name)

    def model_names(self) -> set[str]:
        """Return the aliases of all upstreams, the names that they list, and their default models."""
        names = {name for listed in self._listed.values() for name in listed or ()}
        for upstream in self._upstreams.values():
            names |= {*upstream.models, *([upstream.default_model] if upstream.default_model else [])}
        return names

    def _fallbacks(self, route: Route, name: str | None) -> Iterator[Route]:
        following = self._upstreams[route.upstream].fallback
        while following is not None:
            yield self._router.route_at(following, name)
            following = self._upstreams[following].fallback

    def _choice(self, route: Route, agent_id: str) -> Choice:
        upstream = self._upstreams[route.upstream]
        # OpenAI's own API runs hosted tools, unless a substitute is configured.
        drop = None if upstream.api == "responses" else lambda tool: self._drop_hosted(agent_id, tool, route.upstream)
        hosted = HostedTools(upstream.substitutes, drop)
        return Choice.of(route, self._clients[route.upstream], hosted, api=upstream.api)

    def environment(self) -> dict[str, str]:
        """Return the environment variables for modules that create their own OpenAI client."""
        upstream = self._upstreams[self._default]
        key = upstream.api_key.reveal() if upstream.api_key else "none"
        return {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": upstream.base_url}

    @contextmanager
    def as_sdk_default(self) -> Iterator[None]:
        """Make the default upstream the SDK's default client within the block, for runs outside any request."""
        names = ("_default_openai_client", "_use_responses_by_default")
        before = {name: getattr(_openai_shared, name) for name in names}
        set_default_openai_client(self._clients[self._default], use_for_tracing=False)
        set_default_openai_api("responses" if self._upstreams[self._default].api == "responses" else "chat_completions")
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(_openai_shared, name, value)

    def measurements(self) -> Iterator[Measurement]:
        """Yield the call counters."""
        for name, client in self._clients.items():
            yield from _breaker_measurements(client.breaker, {"upstream": name})

    def describe(self) -> dict[str, Any]:
        """Return the state of each upstream for operators, without keys."""
        return {
            name: {
                "base_url": upstream.base_url,
                "api": upstream.api,
                "default": name == self._default,
                "default_model": self._router.route(None).model if name == self._default else upstream.default_model,
                "models": list(self._listed.get(name, ())),
                **self.health.describe(name),
                **_breaker_facts(self._clients[name].breaker),
                "fallback": upstream.fallback,
                "dropped_tools": {a: sorted(t) for a, t in self._dropped.items()} if name == self._default else {},
                "substituted": {a: sorted(m) for a, m in self._substituted.items()} if name == self._default else {},
            }
            for name, upstream in self._upstreams.items()
        }

    def _update_models(self, name: str, models: Sequence[str]) -> None:
        """Update the models of an upstream, which may become reachable after startup."""
        if models and list(self._listed.get(name, ())) != list(models):
            self._listed[name] = models
            self._router = Router(self._upstreams, self._default, self._listed)

    def _drop_hosted(self, agent_id: str, tool: str, upstream: str) -> None:
        if self._upstreams[upstream].hosted_tools == "refuse":
            raise UpstreamError(
                f"the hosted tool {tool} is only available at OpenAI, not at upstream {upstream}",
                code="hosted_tool_refused",
                hint=f'set hosted_tools = "drop" in [plugins.upstreams.{upstream}]',
            )
        dropped = self._dropped.setdefault(agent_id, set())
        if tool not in dropped:
            dropped.add(tool)
            logger.warning(
                "agent %s runs without its tool %s, which is not available at upstream %s",
                agent_id,
                tool,
                upstream,
            )

    def _note_substitution(self, agent_id: str, name: str, route: Route) -> None:
        noted = self._substituted.setdefault(agent_id, set())
        if name not in noted:
            noted.add(name)
            logger.warning(
                "agent %s names the unknown model %s; using %s of upstream %s",
                agent_id,
                name,
                route.model,
                route.upstream,
            )


def _breaker_facts(breaker: CircuitBreaker) -> dict[str, Any]:
    return {
        "calls": breaker.calls,
        "failed": dict(breaker.failed),
        "failed_over": breaker.failed_over,
        "resting": breaker.is_open,
    }


def _breaker_measurements(breaker: CircuitBreaker, labels: dict[str, str]) -> Iterator[Measurement]:
    about = "Calls to an upstream."
    yield Measurement("agent_gateway.upstream.calls", breaker.calls, "{call}", about, labels, True)
    about = "Failed calls to an upstream."
    for kind in KINDS:
        of_kind = {**labels, "kind": kind}
        yield Measurement("agent_gateway.upstream.failures", breaker.failed[kind], "{call}", about, of_kind, True)
    about = "Calls that failed over to another upstream."
    yield Measurement("agent_gateway.upstream.failovers", breaker.failed_over, "{call}", about, labels, True)


class _AgentModelProvider(ModelProvider):
    def __init__(self, upstreams: UpstreamProvider, agent_id: str) -> None:
        self._upstreams = upstreams
        self._agent_id = agent_id

    def get_model(self, model_name: str | None) -> Model:
        return self._upstreams.model(model_name, self._agent_id)
