"""Removes hosted tools that a policy refuses from the tools offered to a model.

OpenAI's servers execute hosted tools, so the gateway cannot stop a call; it can only hide the tool from the model. The
decision is made by `runs/tool_authorization.py`.
"""

from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool, Model, ModelResponse
from agents.models.interface import ModelProvider

from gateway_core.runs.run_scope import RunScope
from gateway_core.runs.tool_authorization import tool_info
from gateway_core.tools.origin import ToolOrigin


class HostedToolFilter(ModelProvider):
    """A provider whose models receive only the allowed hosted tools.

    Args:
        inner: The provider of the models.
        scope: The scope of the run; its `tools` authorizes each tool once.
    """

    def __init__(self, inner: ModelProvider, scope: RunScope) -> None:
        self._inner = inner
        self._scope = scope
        self._allowed: dict[str, bool] = {}

    def get_model(self, model_name: str | None) -> Model:
        """Return the model for a name. The SDK calls this once per turn."""
        return _FilteredModel(self._inner.get_model(model_name), self)

    async def allowed(self, tools: list[Any]) -> list[Any]:
        """Return the tools without the refused hosted tools."""
        return [tool for tool in tools if isinstance(tool, FunctionTool) or await self._is_allowed(tool.name)]

    async def _is_allowed(self, name: str) -> bool:
        if name not in self._allowed:
            info = tool_info(self._scope, name, _RunAgent(self._scope.run.agent_id), ToolOrigin("hosted"))
            assert self._scope.tools is not None
            self._allowed[name] = await self._scope.tools.refusal(self._scope, info) is None
        return self._allowed[name]


class _RunAgent:
    """Stands in for the calling agent, which a model does not receive: the served agent of the run."""

    def __init__(self, name: str) -> None:
        self.name = name


class _FilteredModel(Model):
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
