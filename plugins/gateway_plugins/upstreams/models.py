"""Wraps the SDK's models for an upstream, and removes the settings that the upstream does not support.

The SDK gives an agent without a model settings that are meant for GPT-5; they must not reach another model.
"""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from agents import (
    Model,
    ModelResponse,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
)
from agents.models.default_models import get_default_model_settings, gpt_5_reasoning_settings_required

from gateway_plugins.upstreams.client import ChatEndpoint, UpstreamClient
from gateway_plugins.upstreams.hosted_tools import HostedTools, includes_hosted

_CHAT_ONLY = ("seed", "stop")


def make_model(name: str, client: UpstreamClient, *, api: str, named: bool, hosted: HostedTools) -> Model:
    """Create a model of an upstream.

    Args:
        name: Name of the model at the upstream.
        client: Client of the upstream.
        api: `chat` or `responses`.
        named: Whether the agent names a known model; otherwise the SDK's default settings are dropped.
        hosted: Handling of hosted tools.
    """
    drop_implied = not named and not gpt_5_reasoning_settings_required(name)
    if api == "responses":
        return _Adapted(OpenAIResponsesModel(name, client), drop_implied, hosted, drop_extra=_CHAT_ONLY)
    endpoint: Any = ChatEndpoint(client)
    return _Adapted(OpenAIChatCompletionsModel(name, endpoint), drop_implied, hosted, ask_for_usage=True)


class _Adapted(Model):
    """A model that adapts settings and tools to its upstream."""

    def __init__(
        self,
        inner: Model,
        drop_implied: bool,
        hosted: HostedTools,
        *,
        drop_extra: tuple[str, ...] = (),
        ask_for_usage: bool = False,
    ) -> None:
        self._inner = inner
        self._drop_implied = drop_implied
        self._drop_extra = drop_extra
        self._hosted = hosted
        self._ask_for_usage = ask_for_usage

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> ModelResponse:
        settings, tools = self._adapt(model_settings, tools)
        return await self._inner.get_response(system_instructions, input, settings, tools, *rest, **named)

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> AsyncIterator[Any]:
        settings, tools = self._adapt(model_settings, tools)
        return self._inner.stream_response(system_instructions, input, settings, tools, *rest, **named)

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """Do nothing: the connections belong to the upstream, and outlive this model."""

    def _adapt(self, settings: ModelSettings, tools: Any) -> tuple[ModelSettings, Any]:
        changes: dict[str, Any] = {}
        if includes_hosted(tools):
            tools = self._hosted.runnable(tools)
            if isinstance(settings.tool_choice, str):
                changes["tool_choice"] = self._hosted.choice(settings.tool_choice, tools)
        if self._ask_for_usage and settings.include_usage is None:
            # Most servers report the token usage of a stream only on request.
            changes["include_usage"] = True
        if self._drop_implied:
            implied = get_default_model_settings()
            if settings.reasoning is not None and settings.reasoning == implied.reasoning:
                changes["reasoning"] = None
            if settings.verbosity is not None and settings.verbosity == implied.verbosity:
                changes["verbosity"] = None
        if settings.extra_args and any(name in settings.extra_args for name in self._drop_extra):
            kept = {name: value for name, value in settings.extra_args.items() if name not in self._drop_extra}
            changes["extra_args"] = kept or None
        return (dataclasses.replace(settings, **changes) if changes else settings), tools
