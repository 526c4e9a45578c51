"""A model that asks another upstream where one fails before it has said anything. What was said is never said again."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from agents import Model, ModelResponse
from attrs import frozen
from openai import OpenAIError

from gateway_plugins.upstreams.circuit_breaker import CircuitBreaker, is_passing_failure

logger = logging.getLogger(__name__)

# Events that tell nothing yet of what the model says.
_PRELUDE = ("response.created", "response.in_progress", "response.queued")


@frozen
class Choice:
    """One upstream's model."""

    upstream: str
    calls: CircuitBreaker
    model: Model


class Failover(Model):
    """The same question for several upstreams, one after the other until one answers.

    Args:
        choices: In order. One that is given a rest is passed over, unless all are.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices

    async def get_response(self, *arguments: Any, **named: Any) -> ModelResponse:
        for choice, following in self._in_turn():
            try:
                return await choice.model.get_response(*arguments, **named)
            except OpenAIError as error:
                if not self._moves_on(error, choice, following):
                    raise
        raise AssertionError("the last choice answers or raises")

    async def stream_response(self, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
        for choice, following in self._in_turn():
            held: list[Any] | None = []
            try:
                async with aclosing(choice.model.stream_response(*arguments, **named)) as events:  # type: ignore[type-var]
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
                if held is None or not self._moves_on(error, choice, following):
                    raise

    def get_retry_advice(self, request: Any) -> Any:
        return self._choices[0].model.get_retry_advice(request)

    async def close(self) -> None:
        """Nothing: the connections belong to the upstreams, and outlive this."""

    def _in_turn(self) -> Iterator[tuple[Choice, Choice | None]]:
        """Each choice, and the one after it."""
        able = [choice for choice in self._choices if not choice.calls.rests] or self._choices
        for position, choice in enumerate(able):
            if choice is not self._choices[0]:
                self._choices[0].calls.failed_over += 1
            yield choice, able[position + 1] if position + 1 < len(able) else None

    def _moves_on(self, error: OpenAIError, failed: Choice, following: Choice | None) -> bool:
        if following is None or not is_passing_failure(error):
            return False
        seconds = failed.calls.rest_after(error)
        logger.warning(
            "the upstream %s failed (%s); %s is asked%s",
            failed.upstream,
            type(error).__name__,
            following.upstream,
            f", for the next {seconds:g} s" if seconds else "",
        )
        return True
