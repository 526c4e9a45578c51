"""Keeps hosted tools from a model that a policy refuses them to.

OpenAI's servers call them by themselves, so a call cannot be stopped; what can be is telling the model that there is
such a tool. It decides nothing.
"""

from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool, Model, ModelResponse
from agents.models.interface import ModelProvider

from gateway_core.runs.run_scope import RunScope
from gateway_core.runs.tool_authorization import tool_info
from gateway_core.tools.origin import ToolOrigin


class HostedToolFilter(ModelProvider):
    """A provider whose models see only the hosted tools that they may have.

    Args:
        inner: The provider that makes the models.
        scope: Whose run it is; its governor is asked, once for each tool.
    """

    def __init__(self, inner: ModelProvider, scope: RunScope) -> None:
        self._inner = inner
        self._scope = scope
        self._allowed: dict[str, bool] = {}

    def get_model(self, model_name: str | None) -> Model:
        """The model for a name; asked once a turn."""
        return _Filtering(self._inner.get_model(model_name), self)

    async def allowed(self, tools: list[Any]) -> list[Any]:
        """The tools without the hosted ones that are refused."""
        return [tool for tool in tools if isinstance(tool, FunctionTool) or await self._may(tool.name)]

    async def _may(self, name: str) -> bool:
        if name not in self._allowed:
            info = tool_info(self._scope, name, _Nobody(self._scope.run.agent_id), ToolOrigin("hosted"))
            assert self._scope.tools is not None
            self._allowed[name] = await self._scope.tools.refusal(self._scope, info) is None
        return self._allowed[name]


class _Nobody:
    """A model is not told which agent it answers for; the served one stands in."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Filtering(Model):
    def __init__(self, inner: Model, provider: HostedToolFilter) -> None:
        self._inner = inner
        self._provider = provider

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: list[Any], *rest: Any, **named: Any
    ) -> ModelResponse:
        if _has_hosted(tools):
            tools = await self._provider.allowed(tools)
        return await self._inner.get_response(system_instructions, input, model_settings, tools, *rest, **named)

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: list[Any], *rest: Any, **named: Any
    ) -> AsyncIterator[Any]:
        def stream(tools: list[Any]) -> AsyncIterator[Any]:
            return self._inner.stream_response(system_instructions, input, model_settings, tools, *rest, **named)

        return self._filtered(stream, tools) if _has_hosted(tools) else stream(tools)

    async def _filtered(self, stream: Any, tools: list[Any]) -> AsyncIterator[Any]:
        async for event in stream(await self._provider.allowed(tools)):
            yield event

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)


def _has_hosted(tools: list[Any]) -> bool:
    return not all(isinstance(tool, FunctionTool) for tool in tools)
