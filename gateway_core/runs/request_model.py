"""Decorates the models of a run: the operator's choice of the model, the request's settings and format, hosted tools.

It does not create models. A setting of the request applies only if the agent's own settings do not set it. OpenAI's
servers execute hosted tools, so the gateway cannot stop a call; it can only hide the tool from the model.
"""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from agents import FunctionTool, Model, ModelProvider, ModelResponse, ModelSettings
from openai.types.shared import Reasoning

from gateway_core.runs.answer_format import ClientSchema
from gateway_core.runs.delegating_model import DelegatingModel
from gateway_core.runs.model_settings import default_settings
from gateway_core.runs.run_scope import POSITION, RunScope
from gateway_core.runs.tool_authorization import tool_info
from gateway_core.tools.origin import origin_of

_EXTRA = ("seed", "stop")


class RequestModelProvider(ModelProvider):
    """A model provider for one run.

    Args:
        inner: The provider of the models.
        scope: The run. Its `settings` are by their names in `ModelSettings`, and `reasoning_effort`, `seed` and `stop`,
            for which `ModelSettings` has no fields.
        model: The model that the operator has set; takes precedence over the one that an agent names.
        fallback: The model of agents that name none.
        filter_tools: Whether a policy may refuse hosted tools.
    """

    def __init__(
        self,
        inner: ModelProvider,
        scope: RunScope,
        *,
        model: str | None = None,
        fallback: str | None = None,
        filter_tools: bool = True,
    ) -> None:
        self._inner = inner
        self._scope = scope
        self._model = model
        self._fallback = fallback
        self._filter_tools = filter_tools
        self._allowed: dict[tuple[str, str], bool] = {}

    def get_model(self, model_name: str | None) -> Model:
        """Return the model for a name. The SDK calls this once per turn."""
        model = self._inner.get_model(self._model or model_name or self._fallback)
        scope = self._scope
        if not (scope.settings or self._filter_tools or scope.answer_format or scope.client_tools):
            return model
        return _RequestModel(model, self, model_name)

    def refuses_any(self, tools: list[Any]) -> bool:
        """Whether there are tools other than functions, such as hosted ones or a shell, which a policy may refuse."""
        return self._filter_tools and not all(isinstance(tool, FunctionTool) for tool in tools)

    async def allowed(self, tools: list[Any]) -> list[Any]:
        """Return the tools without refused tools other than functions. Each is authorized once per served agent."""
        return [tool for tool in tools if isinstance(tool, FunctionTool) or await self._is_allowed(tool)]

    async def _is_allowed(self, tool: Any) -> bool:
        position = POSITION.get()
        agent = position.agent if position is not None and position.agent is not None else None
        info = tool_info(self._scope, tool.name, agent or _RunAgent(self._scope.run.agent_id), origin_of(tool))
        key = info.agent_id, tool.name
        if key not in self._allowed:
            assert self._scope.tools is not None
            self._allowed[key] = await self._scope.tools.refusal(self._scope, info) is None
        return self._allowed[key]

    def output_schema(self, own: Any) -> Any:
        """Return the output format of a call: the agent's, or the client's if the call can produce the answer."""
        wanted = self._scope.answer_format
        if wanted is None or own is not None:
            return own
        position = POSITION.get()
        return ClientSchema(wanted) if position is not None and position.answers else None

    def fill(self, settings: ModelSettings, model_name: str | None) -> ModelSettings:
        """Return settings in which the unset ones are those of the request.

        Args:
            settings: The agent's.
            model_name: The model that the agent names, for which the SDK has defaults for reasoning and verbosity.
        """
        changes: dict[str, Any] = self._client_choice(settings)
        if not self._scope.settings and not changes:
            return settings
        extra = dict(settings.extra_args or {})
        implied = _has_default_reasoning(settings, model_name)
        for name, value in self._scope.settings.items():
            if name == "reasoning_effort":
                if settings.reasoning is None or implied:
                    changes["reasoning"] = Reasoning(effort=value)
            elif name in _EXTRA:
                extra.setdefault(name, value)
            elif getattr(settings, name) is None or (name == "verbosity" and implied):
                changes[name] = value
        if extra:
            changes["extra_args"] = extra
        return dataclasses.replace(settings, **changes) if changes else settings

    def offered(self, tools: list[Any]) -> list[Any]:
        """Return the tools without those of the client that this request does not offer."""
        client = self._scope.client_tools
        return client.visible(tools) if client is not None else tools

    def _client_choice(self, settings: ModelSettings) -> dict[str, Any]:
        """Return the settings for the client's tools. Its choice of a tool takes precedence over the agent's."""
        client, position = self._scope.client_tools, POSITION.get()
        if client is None or position is None or not position.answers:
            return {}
        chosen = client.settings(position.agent)
        if settings.parallel_tool_calls is not None:
            chosen.pop("parallel_tool_calls", None)
        return chosen


class _RequestModel(DelegatingModel):
    """A model of one run. Adds no cost per streamed event, except if there are hosted tools."""

    def __init__(self, inner: Model, provider: RequestModelProvider, model_name: str | None) -> None:
        super().__init__(inner)
        self._provider = provider
        self._model_name = model_name

    async def get_response(
        self,
        system_instructions: Any,
        input: Any,
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any = None,
        *rest: Any,
        **named: Any,
    ) -> ModelResponse:
        settings = self._provider.fill(model_settings, self._model_name)
        tools = self._provider.offered(tools)
        if self._provider.refuses_any(tools):
            tools = await self._provider.allowed(tools)
        schema = self._provider.output_schema(output_schema)
        return await self._inner.get_response(system_instructions, input, settings, tools, schema, *rest, **named)

    def stream_response(
        self,
        system_instructions: Any,
        input: Any,
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any = None,
        *rest: Any,
        **named: Any,
    ) -> AsyncIterator[Any]:
        settings = self._provider.fill(model_settings, self._model_name)
        tools = self._provider.offered(tools)
        schema = self._provider.output_schema(output_schema)

        def stream(tools: list[Any]) -> AsyncIterator[Any]:
            return self._inner.stream_response(system_instructions, input, settings, tools, schema, *rest, **named)

        return self._filtered(stream, tools) if self._provider.refuses_any(tools) else stream(tools)

    async def _filtered(self, stream: Any, tools: list[Any]) -> AsyncIterator[Any]:
        async for event in stream(await self._provider.allowed(tools)):
            yield event


class _RunAgent:
    """Stands in for a calling agent that is not known: the served agent of the run."""

    def __init__(self, name: str) -> None:
        self.name = name


def _has_default_reasoning(settings: ModelSettings, model_name: str | None) -> bool:
    """Whether reasoning and verbosity are the SDK's defaults for a model name, not the author's."""
    implied = default_settings(model_name)
    return (settings.reasoning, settings.verbosity) == (implied.reasoning, implied.verbosity)
