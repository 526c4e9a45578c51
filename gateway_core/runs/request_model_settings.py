"""Puts what a request and an operator want in front of the models that a provider hands out.

It makes no model. A setting of the request counts only where the agent's own settings leave it open.
"""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agents import Model, ModelProvider, ModelResponse, ModelSettings
from agents.models import get_default_model_settings
from openai.types.shared import Reasoning

_EXTRA = ("seed", "stop")


class RequestModelProvider(ModelProvider):
    """A provider as one request sees it.

    Args:
        inner: The provider that makes the models.
        model: The model to use whatever an agent names, by the operator's will.
        fallback: The model to use where an agent names none.
        settings: Sampling settings of the request: by their names in `ModelSettings`, and `reasoning_effort`, `seed`
            and `stop`, for which it has no field of their own.
    """

    def __init__(
        self, inner: ModelProvider, *, model: str | None, fallback: str | None, settings: Mapping[str, Any]
    ) -> None:
        self._inner = inner
        self._model = model
        self._fallback = fallback
        self._settings = settings

    def get_model(self, model_name: str | None) -> Model:
        """The model for a name; asked once a turn."""
        model = self._inner.get_model(self._model or model_name or self._fallback)
        return _OpenSettings(model, self._settings, unnamed=model_name is None) if self._settings else model


class _OpenSettings(Model):
    """A model whose open settings are filled from a request. Adds nothing to the cost of a streamed event."""

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
        open_: dict[str, Any] = {}
        extra = dict(settings.extra_args or {})
        for name, value in self._settings.items():
            if name == "reasoning_effort":
                if settings.reasoning is None or self._implied(settings):
                    open_["reasoning"] = Reasoning(effort=value)
            elif name in _EXTRA:
                extra.setdefault(name, value)
            elif getattr(settings, name) is None or (name == "verbosity" and self._implied(settings)):
                open_[name] = value
        if extra:
            open_["extra_args"] = extra
        return dataclasses.replace(settings, **open_) if open_ else settings

    def _implied(self, settings: ModelSettings) -> bool:
        """Whether reasoning and verbosity are not the author's, but what the SDK puts where no model is named."""
        implied = get_default_model_settings()
        return self._unnamed and (settings.reasoning, settings.verbosity) == (implied.reasoning, implied.verbosity)
