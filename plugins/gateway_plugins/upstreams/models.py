"""Creates the SDK's models for an upstream, and removes the settings that the upstream does not support."""

import dataclasses
from typing import Any

from agents import Model, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel
from attrs import frozen

from gateway_core import pair_calls, settings_for
from gateway_plugins.upstreams.chat_api import ChatEndpoint
from gateway_plugins.upstreams.circuit_breaker import CircuitBreaker
from gateway_plugins.upstreams.client import UpstreamClient
from gateway_plugins.upstreams.conversation import replay_rule, with_media
from gateway_plugins.upstreams.flat_tools import flat
from gateway_plugins.upstreams.hosted_tools import HostedTools, includes_hosted
from gateway_plugins.upstreams.routing import Route

# Extra arguments that only one of the two APIs accepts. The SDK adds `context_management` for agents in a sandbox.
_CHAT_ONLY = frozenset({"seed", "stop"})
_RESPONSES_ONLY = frozenset({"context_management"})


@frozen
class Choice:
    """The model of one upstream, and the changes of a call that the upstream requires."""

    upstream: str
    name: str
    """The name of the model at the upstream."""
    breaker: CircuitBreaker
    model: Model
    hosted: HostedTools
    chat: bool
    """Whether the upstream is called by the Chat Completions API."""

    @classmethod
    def of(cls, route: Route, client: UpstreamClient, hosted: HostedTools, *, api: str) -> "Choice":
        """Create the model that a route names.

        Args:
            route: The upstream, and the name of the model there.
            client: Client of the upstream.
            hosted: Handling of hosted tools.
            api: `chat` or `responses`.
        """
        endpoint: Any = ChatEndpoint(client)
        model: Model = (
            OpenAIResponsesModel(route.model, client)
            if api == "responses"
            else OpenAIChatCompletionsModel(
                route.model,
                endpoint,
                should_replay_reasoning_content=replay_rule(
                    client.upstream.replay, route.model, client.upstream.base_url
                ),
            )
        )
        return cls(route.upstream, route.model, client.breaker, model, hosted, api != "responses")

    def prepare(self, items: Any) -> Any:
        """Return the conversation of a call as the upstream supports it."""
        items = pair_calls(items)
        return with_media(items) if self.chat else items

    def adapt(self, settings: ModelSettings, tools: Any) -> tuple[ModelSettings, Any]:
        """Return the settings and the tools of a call as the upstream supports them."""
        settings = settings_for(settings, self.name)
        changes: dict[str, Any] = {}
        if includes_hosted(tools):
            tools = self.hosted.runnable(tools)
            if isinstance(settings.tool_choice, str):
                changes["tool_choice"] = self.hosted.choice(settings.tool_choice, tools)
        if self.chat:
            tools = flat(tools)
        unsupported = _RESPONSES_ONLY if self.chat else _CHAT_ONLY
        if settings.extra_args and not unsupported.isdisjoint(settings.extra_args):
            kept = {name: value for name, value in settings.extra_args.items() if name not in unsupported}
            changes["extra_args"] = kept or None
        return (dataclasses.replace(settings, **changes) if changes else settings), tools
