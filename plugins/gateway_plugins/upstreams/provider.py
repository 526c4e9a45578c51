"""Hands out models over the upstreams' pooled clients.

One client an upstream for the whole process, and one model object a name: the SDK asks for it at every turn.
"""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from agents import Model, ModelProvider, set_default_openai_api, set_default_openai_client
from agents.models import _openai_shared

from gateway_core import Measurement, UpstreamError
from gateway_plugins.upstreams.circuit_breaker import KINDS, CircuitBreaker
from gateway_plugins.upstreams.client import UpstreamClient
from gateway_plugins.upstreams.failover import Choice, Failover
from gateway_plugins.upstreams.health import UpstreamHealth
from gateway_plugins.upstreams.hosted import HostedTools
from gateway_plugins.upstreams.models import make_model
from gateway_plugins.upstreams.routing import Route, Router
from gateway_plugins.upstreams.settings import Upstream

logger = logging.getLogger(__name__)


class UpstreamProvider:
    """The upstreams of one gateway, open. Made by `open`."""

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
        self.reach = UpstreamHealth(clients, self._has_models)
        self._models: dict[tuple[tuple[Route, ...], str], Model] = {}
        self._dropped: dict[str, set[str]] = {}
        self._substituted: dict[str, set[str]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, upstreams: Mapping[str, Upstream], default: str) -> AsyncIterator["UpstreamProvider"]:
        """Make the clients, and ask each upstream which models it has; one that does not answer is kept."""
        async with AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(UpstreamClient(upstream)) for name, upstream in upstreams.items()
            }
            provider = cls(upstreams, clients, default)
            await provider.reach.ask()
            for name, answer in provider.reach.answers.items():
                if answer.problem is not None:
                    logger.warning("the upstream %s does not say which models it has: %s", name, answer.problem)
            stack.push_async_callback(provider.reach.close)
            yield provider

    def for_agent(self, agent_id: str) -> ModelProvider:
        """The provider for an agent's runs."""
        return _AgentsProvider(self, agent_id)

    def model(self, name: str | None, agent_id: str) -> Model:
        """The model that a name leads to. A substitution is logged once for each agent."""
        route = self._router.route(name)
        if not route.found and name is not None:
            self._note_substitution(agent_id, name, route)
        routes = (route, *self._fallbacks(route, name))
        model = self._models.get((routes, agent_id))
        if model is None:
            choices = [Choice(r.upstream, self._clients[r.upstream].calls, self._made(r, agent_id)) for r in routes]
            model = Failover(choices) if len(choices) > 1 else choices[0].model
            self._models[routes, agent_id] = model
        return model

    def _fallbacks(self, route: Route, name: str | None) -> Iterator[Route]:
        following = self._upstreams[route.upstream].fallback
        while following is not None:
            yield self._router.route_at(following, name)
            following = self._upstreams[following].fallback

    def _made(self, route: Route, agent_id: str) -> Model:
        upstream = self._upstreams[route.upstream]
        # OpenAI's own API runs them, unless something else is to take their place.
        drop = None if upstream.api == "responses" else lambda tool: self._hosted_tool(agent_id, tool, route.upstream)
        hosted = HostedTools(upstream.substitutes, drop)
        return make_model(
            route.model, self._clients[route.upstream], api=upstream.api, named=route.found, hosted=hosted
        )

    def environment(self) -> dict[str, str]:
        """What a module that makes its own OpenAI client should find in the environment."""
        upstream = self._upstreams[self._default]
        key = upstream.api_key.reveal() if upstream.api_key else "none"
        return {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": upstream.base_url}

    @contextmanager
    def as_sdk_default(self) -> Iterator[None]:
        """Make the default upstream the SDK's own default, for runs outside any request."""
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
        """What became of the calls."""
        for name, client in self._clients.items():
            yield from _measured(client.calls, {"upstream": name})

    def describe(self) -> dict[str, Any]:
        """Facts for operators; no key is among them."""
        return {
            name: {
                "base_url": upstream.base_url,
                "api": upstream.api,
                "default": name == self._default,
                "default_model": self._router.route(None).model if name == self._default else upstream.default_model,
                "models": list(self._listed.get(name, ())),
                **self.reach.describe(name),
                **_calls_of(self._clients[name].calls),
                "fallback": upstream.fallback,
                "dropped_tools": {a: sorted(t) for a, t in self._dropped.items()} if name == self._default else {},
                "substituted": {a: sorted(m) for a, m in self._substituted.items()} if name == self._default else {},
            }
            for name, upstream in self._upstreams.items()
        }

    def _has_models(self, name: str, models: Sequence[str]) -> None:
        """An upstream that was not there at the start says what it has when it is."""
        if models and list(self._listed.get(name, ())) != list(models):
            self._listed[name] = models
            self._router = Router(self._upstreams, self._default, self._listed)

    def _hosted_tool(self, agent_id: str, tool: str, upstream: str) -> None:
        if self._upstreams[upstream].hosted_tools == "refuse":
            raise UpstreamError(
                f"the tool {tool} runs at OpenAI only, and the upstream {upstream} is another one",
                code="hosted_tool_refused",
                hint=f'set hosted_tools = "drop" in [plugins.upstreams.{upstream}]',
            )
        dropped = self._dropped.setdefault(agent_id, set())
        if tool not in dropped:
            dropped.add(tool)
            logger.warning(
                "the agent %s does without its tool %s, which runs at OpenAI only; the upstream is %s",
                agent_id,
                tool,
                upstream,
            )

    def _note_substitution(self, agent_id: str, name: str, route: Route) -> None:
        noted = self._substituted.setdefault(agent_id, set())
        if name not in noted:
            noted.add(name)
            logger.warning(
                "the agent %s names the model %s, which no upstream has; it gets %s of %s",
                agent_id,
                name,
                route.model,
                route.upstream,
            )


def _calls_of(calls: CircuitBreaker) -> dict[str, Any]:
    return {
        "calls": calls.made,
        "failed": dict(calls.failed),
        "failed_over": calls.failed_over,
        "resting": calls.rests,
    }


def _measured(calls: CircuitBreaker, labels: dict[str, str]) -> Iterator[Measurement]:
    about = "Calls of an upstream."
    yield Measurement("agent_gateway.upstream.calls", calls.made, "{call}", about, labels, True)
    about = "Calls of an upstream that failed."
    for kind in KINDS:
        of_kind = {**labels, "kind": kind}
        yield Measurement("agent_gateway.upstream.failures", calls.failed[kind], "{call}", about, of_kind, True)
    about = "Calls for which another upstream was asked."
    yield Measurement("agent_gateway.upstream.failovers", calls.failed_over, "{call}", about, labels, True)


class _AgentsProvider(ModelProvider):
    def __init__(self, upstreams: UpstreamProvider, agent_id: str) -> None:
        self._upstreams = upstreams
        self._agent_id = agent_id

    def get_model(self, model_name: str | None) -> Model:
        return self._upstreams.model(model_name, self._agent_id)
