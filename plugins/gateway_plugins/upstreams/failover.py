"""Provides the model of an agent, which fails over to another upstream if one fails before it produces output.

Output that was already streamed is never repeated.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from agents import Model, ModelResponse, ModelSettings
from openai import OpenAIError

from gateway_plugins.upstreams.circuit_breaker import is_transient_failure
from gateway_plugins.upstreams.flat_tools import namespaces, restore, restore_streamed
from gateway_plugins.upstreams.models import Choice

logger = logging.getLogger(__name__)

# Events that contain no output of the model.
_PRELUDE = ("response.created", "response.in_progress", "response.queued")


class UpstreamModel(Model):
    """A model that tries several upstreams in order until one responds.

    Args:
        choices: The models in order of preference. One whose circuit breaker is open is skipped, unless all are open.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> ModelResponse:
        for choice, following in self._in_order():
            adapted = choice.adapt(model_settings, tools)
            try:
                response = await choice.model.get_response(
                    system_instructions, _prepared(choice, input, named), *adapted, *rest, **named
                )
                return restore(response, names) if choice.chat and (names := namespaces(tools)) else response
            except OpenAIError as error:
                if not self._fails_over(error, choice, following):
                    raise
        raise AssertionError("the last choice returns or raises")

    def stream_response(
        self, system_instructions: Any, input: Any, model_settings: ModelSettings, tools: Any, *rest: Any, **named: Any
    ) -> AsyncIterator[Any]:
        def start(choice: Choice) -> AsyncIterator[Any]:
            adapted = choice.adapt(model_settings, tools)
            items = _prepared(choice, input, named)
            events = choice.model.stream_response(system_instructions, items, *adapted, *rest, **named)
            return restore_streamed(events, names) if choice.chat and (names := namespaces(tools)) else events

        # Without a fallback, no event passes through another generator.
        return self._stream(start) if len(self._choices) > 1 else start(self._choices[0])

    async def _stream(self, start: Callable[[Choice], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        for choice, following in self._in_order():
            held: list[Any] | None = []
            try:
                async with aclosing(start(choice)) as events:  # type: ignore[type-var]
                    async for event in events:
                        if held is not None:
                            held.append(event)
                            if event.type in _PRELUDE:
                                continue
                            for early in held:
                                yield early
                            held = None
                        else:
                            yield event
                for early in held or ():
                    yield early
                return
            except OpenAIError as error:
                if held is None or not self._fails_over(error, choice, following):
                    raise

    @property
    def preferred(self) -> Choice:
        """The model that is tried first."""
        return self._choices[0]

    def get_retry_advice(self, request: Any) -> Any:
        return self._choices[0].model.get_retry_advice(request)

    async def close(self) -> None:
        """Do nothing: the connections belong to the upstreams, and outlive this model."""

    def _in_order(self) -> Iterator[tuple[Choice, Choice | None]]:
        """Yield each choice, and the one after it."""
        available = [choice for choice in self._choices if not choice.breaker.is_open] or self._choices
        for position, choice in enumerate(available):
            if choice is not self._choices[0]:
                self._choices[0].breaker.failed_over += 1
            yield choice, available[position + 1] if position + 1 < len(available) else None

    def _fails_over(self, error: OpenAIError, failed: Choice, following: Choice | None) -> bool:
        if following is None or not is_transient_failure(error):
            return False
        seconds = failed.breaker.trip(error)
        logger.warning(
            "upstream %s failed (%s); failing over to %s%s",
            failed.upstream,
            type(error).__name__,
            following.upstream,
            f" for {seconds:g} s" if seconds else "",
        )
        return True


def _prepared(choice: Choice, items: Any, named: Mapping[str, Any]) -> Any:
    # With a conversation that the server keeps, the items are only a part of it.
    kept = not choice.chat and (named.get("previous_response_id") or named.get("conversation_id"))
    return items if kept else choice.prepare(items)
