"""Records the model calls in one request's run, and reports the outcome of each.

It does not call models and does not inspect their output.
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
    """Resolves the names of the models that a run's agents use."""

    override: str | None = None
    """The model that the operator has set; takes precedence over the one that an agent names."""
    fallback: str | None = None
    """The model of agents that name none."""

    def of(self, requested: Any) -> str | None:
        """Return the name for an agent's `model`: a name, `None`, or a model object."""
        if requested is None or isinstance(requested, str):
            return self.override or requested or self.fallback
        own = getattr(requested, "model", None)
        return own if isinstance(own, str) else type(requested).__name__


class ModelCalls:
    """The model calls of one request's run. Each SDK run within it makes at most one call at a time.

    Args:
        hooks: Receives `on_model_end` for each call.
        run: The run.
        names: Resolves the model names of its agents.
    """

    def __init__(self, hooks: Hooks, run: RunContext, names: ModelNames) -> None:
        self._hooks = hooks
        self._run = run
        self._names = names
        self._open: dict[object, _OpenCall] = {}

    def began(self, key: object, agent: str, requested: Any) -> None:
        """Record the start of a call in the SDK run identified by `key`."""
        self._open[key] = _OpenCall(agent, self._names.of(requested), time.perf_counter())

    def first_chunk(self, key: object) -> None:
        """Record the first chunk of a streamed response."""
        call = self._open.get(key)
        if call is not None and call.first_chunk is None:
            call.first_chunk = time.perf_counter() - call.began

    def ended(self, key: object, usage: Usage) -> None:
        """Record that a call has a response."""
        self._end(key, usage, "ok")

    def aborted(self, key: object, error: BaseException | None) -> None:
        """Record that the SDK run failed: its call in flight has no response."""
        self._end(key, Usage(), "cancelled" if isinstance(error, asyncio.CancelledError) else "error")

    def close(self) -> None:
        """Record every call still in flight as cancelled, because the request's run has ended."""
        for key in [*self._open]:
            self._end(key, Usage(), "cancelled")

    def _end(self, key: object, usage: Usage, outcome: Literal["ok", "error", "cancelled"]) -> None:
        call = self._open.pop(key, None)
        if call is not None:
            seconds = time.perf_counter() - call.began
            self._hooks.on_model_end(
                ModelCall(self._run, call.agent, call.model, seconds, usage, outcome, call.first_chunk)
            )
