"""Wraps a model provider to apply the model choice of the operator and the sampling settings of a request.

It does not create models. A setting of the request applies only if the agent's own settings do not set it.
"""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.models import get_default_model_settings
from openai.types.shared import Reasoning

_EXTRA = ("seed", "stop")


class RequestModelProvider(ModelProvider):
    """A model provider for one request.

    Args:
        inner: The provider of the models.
        model: The model that the operator has set; takes precedence over the one that an agent names.
        fallback: The model of agents that name none.
        settings: Sampling settings of the request: by their names in `ModelSettings`, and `reasoning_effort`, `seed`
            and `stop`, for which `ModelSettings` has no fields.
    """

    def __init__(
        self, inner: ModelProvider, *, model: str | None, fallback: str | None, settings: Mapping[str, Any]
    ) -> None:
        self._inner = inner
        self._model = model
        self._fallback = fallback
        self._settings = settings

    def get_model(self, model_name: str | None) -> Model:
        """Return the model for a name. The SDK calls this once per turn."""
        model = self._inner.get_model(self._model or model_name or self._fallback)
        return _RequestModel(model, self._settings, unnamed=model_name is None) if self._settings else model


class _RequestModel(Model):
    """A model whose unset settings are filled in from a request. Adds no cost per streamed event."""

    def __init__(self, inner: Model, settings: Mapping[str, Any], *, unnamed: bool) -> None:
        self._inner = inner
        self._settings = settings
        self._unnamed = unnamed

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, *rest: Any, **named: Any
    ) -> ModelResponse:
        return await self._inner.get_response(system_instructions, input, self._fill(model_settings), *rest, **named)

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, *rest: Any, **named: Any
    ) -> AsyncIterator[Any]:
        return self._inner.stream_response(system_instructions, input, self._fill(model_settings), *rest, **named)

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    def _fill(self, settings: ModelSettings) -> ModelSettings:
        changes: dict[str, Any] = {}
        extra = dict(settings.extra_args or {})
        for name, value in self._settings.items():
            if name == "reasoning_effort":
                if settings.reasoning is None or self._implied(settings):
                    changes["reasoning"] = Reasoning(effort=value)
            elif name in _EXTRA:
                extra.setdefault(name, value)
            elif getattr(settings, name) is None or (name == "verbosity" and self._implied(settings)):
                changes[name] = value
        if extra:
            changes["extra_args"] = extra
        return dataclasses.replace(settings, **changes) if changes else settings

    def _implied(self, settings: ModelSettings) -> bool:
        """Whether reasoning and verbosity are the SDK's defaults for agents without a model, not the author's."""
        implied = get_default_model_settings()
        return self._unnamed and (settings.reasoning, settings.verbosity) == (implied.reasoning, implied.verbosity)
