"""Follows the calls of models in one request's run, and announces how each one ended.

It calls no model, and looks at no piece of an answer: it is told when the first one came.
"""

import asyncio
import time
from typing import Any, Literal

from attrs import define, frozen

from gateway_core.hooks.dispatch import Hooks
from gateway_core.types import ModelCall, RunContext, Usage


@define(eq=False)
class _OpenCall:
    agent: str
    model: str | None
    began: float
    first_chunk: float | None = None


@frozen(eq=False)
class ModelNames:
    """Which model a run's agents get."""

    override: str | None = None
    """Whatever an agent names, by the operator's will."""
    fallback: str | None = None
    """Where an agent names none."""

    def of(self, asked: Any) -> str | None:
        """The name for what an agent asks for: a name, nothing, or a model that it brings along."""
        if asked is None or isinstance(asked, str):
            return self.override or asked or self.fallback
        own = getattr(asked, "model", None)
        return own if isinstance(own, str) else type(asked).__name__


class ModelCalls:
    """The model calls of one request's run. Each SDK run in it has at most one at a time.

    Args:
        hooks: Told of each call's end.
        run: The run.
        names: Which models its agents get.
    """

    def __init__(self, hooks: Hooks, run: RunContext, names: ModelNames) -> None:
        self._hooks = hooks
        self._run = run
        self._names = names
        self._open: dict[object, _OpenCall] = {}

    def began(self, key: object, agent: str, asked: Any) -> None:
        """A call begins in the SDK run that `key` stands for."""
        self._open[key] = _OpenCall(agent, self._names.of(asked), time.perf_counter())

    def first_chunk(self, key: object) -> None:
        """The first piece of a streamed answer came."""
        call = self._open.get(key)
        if call is not None and call.first_chunk is None:
            call.first_chunk = time.perf_counter() - call.began

    def ended(self, key: object, usage: Usage) -> None:
        """A call's answer is there."""
        self._end(key, usage, "ok")

    def broke_off(self, key: object, error: BaseException | None) -> None:
        """The SDK run failed: a call that was on has no answer."""
        self._end(key, Usage(), "cancelled" if isinstance(error, asyncio.CancelledError) else "error")

    def close(self) -> None:
        """The request's run is over, and with it every call."""
        for key in [*self._open]:
            self._end(key, Usage(), "cancelled")

    def _end(self, key: object, usage: Usage, outcome: Literal["ok", "error", "cancelled"]) -> None:
        call = self._open.pop(key, None)
        if call is not None:
            seconds = time.perf_counter() - call.began
            self._hooks.on_model_end(
                ModelCall(self._run, call.agent, call.model, seconds, usage, outcome, call.first_chunk)
            )
