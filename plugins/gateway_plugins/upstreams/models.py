"""The SDK's own models over an upstream's client, minus what an upstream cannot take.

An agent that names no model carries settings that the SDK means for GPT-5; they must not reach another model.
"""

import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents import (
    FunctionTool,
    Model,
    ModelResponse,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Tool,
)
from agents.models.default_models import get_default_model_settings, gpt_5_reasoning_settings_required

from gateway_plugins.upstreams.client import ChatEndpoint, UpstreamClient

_CHAT_ONLY = ("seed", "stop")


def make_model(
    name: str, client: UpstreamClient, *, api: str, named: bool, on_hosted_tool: Callable[[str], None]
) -> Model:
    """A model of an upstream.

    Args:
        name: What the upstream calls it.
        client: The upstream's client.
        api: `chat` or `responses`.
        named: Whether the agent named a model that was found; otherwise its implied settings are dropped.
        on_hosted_tool: Told the name of each tool that a chat upstream cannot run, before it is taken away; may raise.
    """
    drop_implied = not named and not gpt_5_reasoning_settings_required(name)
    if api == "responses":
        return _Adapted(OpenAIResponsesModel(name, client), drop_implied, drop_extra=_CHAT_ONLY)
    endpoint: Any = ChatEndpoint(client)
    return _Adapted(OpenAIChatCompletionsModel(name, endpoint), drop_implied, on_hosted_tool=on_hosted_tool)


class _Adapted(Model):
    """A model that gets settings its upstream understands."""

    def __init__(
        self,
        inner: Model,
        drop_implied: bool,
        *,
        drop_extra: tuple[str, ...] = (),
        on_hosted_tool: Callable[[str], None] | None = None,
    ) -> None:
        self._inner = inner
        self._drop_implied = drop_implied
        self._drop_extra = drop_extra
        self._on_hosted_tool = on_hosted_tool

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> ModelResponse:
        settings, tools = self._adapt(model_settings), self._runnable(tools)
        return await self._inner.get_response(system_instructions, input, settings, tools, *rest, **named)

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> AsyncIterator[Any]:
        settings, tools = self._adapt(model_settings), self._runnable(tools)
        return self._inner.stream_response(system_instructions, input, settings, tools, *rest, **named)

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """Nothing: the connections belong to the upstream, and outlive this."""

    def _runnable(self, tools: list[Tool]) -> list[Tool]:
        """The tools without those that only OpenAI's own server can run."""
        if self._on_hosted_tool is None or all(isinstance(tool, FunctionTool) for tool in tools):
            return tools
        for tool in tools:
            if not isinstance(tool, FunctionTool):
                self._on_hosted_tool(tool.name)
        return [tool for tool in tools if isinstance(tool, FunctionTool)]

    def _adapt(self, settings: ModelSettings) -> ModelSettings:
        changes: dict[str, Any] = {}
        if self._on_hosted_tool is not None and settings.include_usage is None:
            # Only OpenAI's own server counts the tokens of a stream without being asked.
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
        return dataclasses.replace(settings, **changes) if changes else settings
