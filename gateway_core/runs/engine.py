"""Starts runs, tells them as RunEvents, and announces how each one ended.

It renders nothing: every HTTP surface reads the same events. Leaving `ActiveRun` as a context manager ends the run,
whatever state it is in, and with it the upstream's work.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agents import (
    InputGuardrailTripwireTriggered,
    ModelProvider,
    OutputGuardrailTripwireTriggered,
    Runner,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)
from attrs import field, frozen

from gateway_core.config import Config
from gateway_core.errors import GatewayError, RunTimeoutError, UnavailableError
from gateway_core.hooks import Hooks
from gateway_core.runnables import AgentRunnable, DiagnosisRunnable, Takes, WorkflowRunnable
from gateway_core.runs.failures import as_gateway_error
from gateway_core.runs.models import ScopedProvider
from gateway_core.runs.scope import POSITION, Position, RunScope
from gateway_core.runs.workflow import history, run_workflow
from gateway_core.types import (
    AgentEntry,
    Completed,
    Failed,
    Outcome,
    Principal,
    RunContext,
    RunEvent,
    ServedAgent,
    TextDelta,
)

logger = logging.getLogger(__name__)

_GUARDRAILS = (
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)


@frozen
class RunRequest:
    """What to run."""

    served: ServedAgent
    run: RunContext
    items: Sequence[Mapping[str, Any]]
    """The conversation, as input items of the Responses format."""
    text: str
    """The last thing that the user wrote, for workflows that take text."""
    live: bool
    """Whether the events are read as they come."""
    system: str | None = None
    settings: Mapping[str, Any] = field(factory=dict)
    metadata: Mapping[str, Any] = field(factory=dict)
    """The request's own, for workflows whose input has more fields than the text."""


class Engine:
    """The runs of one gateway.

    Args:
        hooks: Asked for models, told of ends.
        config: Limits of runs, and operators' settings for agents.
    """

    def __init__(self, hooks: Hooks, config: Config) -> None:
        self._hooks = hooks
        self._config = config
        self._active: set[ActiveRun] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False

    def configure(self, config: Config) -> None:
        """Take another configuration for runs that begin from now on."""
        self._config = config

    @property
    def active(self) -> int:
        """How many runs are on."""
        return len(self._active)

    def start(self, request: RunRequest) -> "ActiveRun":
        """A run, to be entered as an async context manager.

        Raises:
            UnavailableError: The gateway is stopping.
        """
        if self.stopping:
            raise UnavailableError("the gateway is stopping", code="shutting_down", retry_after=1)
        served = request.served
        scope = RunScope(
            request.run,
            self._provider(request.run, served.entry, fallback=served.model, settings=request.settings),
            live=request.live,
            system=request.system,
            settings=request.settings,
            text=request.text,
            hold_answers=self._config.runs.output_guardrails == "buffer",
        )
        return ActiveRun(self, request, scope)

    @contextmanager
    def importing(self, entry: AgentEntry) -> Iterator[RunScope]:
        """While a module is imported: runs that it starts then use the gateway's models, in the gateway's loop."""
        run = RunContext(f"import_{entry.id}", Principal("gateway"), entry.id)
        scope = RunScope(run, self._provider(run, entry, fallback=None, settings={}), live=False)
        token = POSITION.set(Position(scope, 0))
        try:
            yield scope
        finally:
            POSITION.reset(token)

    def _provider(
        self, run: RunContext, entry: AgentEntry, *, fallback: str | None, settings: Mapping[str, Any]
    ) -> ModelProvider | None:
        provider = self._hooks.model_provider(run, entry)
        if provider is None:
            return None
        return ScopedProvider(provider, model=self._config.agent(entry.id).model, fallback=fallback, settings=settings)

    async def drain(self, timeout: float) -> None:
        """Let the active runs end, and stop those that have not after `timeout` seconds. No new ones start."""
        self.stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            for run in list(self._active):
                run.stop(UnavailableError("the gateway is stopping", code="shutting_down"))

    async def perform(self, request: RunRequest, scope: RunScope) -> None:
        """Do the run, and put its last event on the channel. Raises nothing but a cancellation from outside."""
        task = asyncio.current_task()
        token = POSITION.set(Position(scope, 0))
        limit = self._config.runs.timeout
        try:
            async with asyncio.timeout(limit) as clock:
                await self._run(request, scope)
            last: RunEvent = Completed(scope.usage, "content_filter" if scope.refused else "stop")
        except _GUARDRAILS as trip:
            logger.info("a guardrail of %s stopped a run: %s", request.served.id, type(trip).__name__)
            scope.channel.put(TextDelta(self._config.runs.refusal))
            last = Completed(scope.usage, "content_filter")
        except TimeoutError as error:
            timed_out = RunTimeoutError(f"the run did not end within {limit:g} s", hint="raise [runs] timeout")
            last = Failed(timed_out if clock.expired() else as_gateway_error(error), scope.usage)
        except BaseException as error:
            if task is not None and task.cancelling():
                raise
            last = Failed(as_gateway_error(error), scope.usage)
        finally:
            POSITION.reset(token)
        scope.channel.put(last)

    async def _run(self, request: RunRequest, scope: RunScope) -> None:
        runnable = request.served.runnable
        if isinstance(runnable, AgentRunnable):
            # Through the SDK's own door: the default runner is ours, and follows the run.
            await Runner.run(
                runnable.agent,
                [*request.items],  # type: ignore[list-item]
                context=runnable.context_for(request.run),
                max_turns=self._config.runs.max_turns,
            )
        elif isinstance(runnable, DiagnosisRunnable):
            scope.channel.put(TextDelta(runnable.text))
        elif isinstance(runnable, WorkflowRunnable):
            scope.terminal = runnable.terminal
            if self._config.runs.workflow_history and runnable.takes is Takes.TEXT:
                scope.history = history(request.items)
            await run_workflow(runnable, scope, items=request.items, text=request.text, metadata=request.metadata)

    def entered(self, run: "ActiveRun") -> None:
        """A run began."""
        self._active.add(run)
        self._idle.clear()

    def left(self, run: "ActiveRun", outcome: Outcome) -> None:
        """A run ended: tell everybody, once."""
        self._active.discard(run)
        if not self._active:
            self._idle.set()
        if outcome.error is not None:
            cause = outcome.error.__cause__
            logger.warning(
                "request %s: the run of %s failed: %s%s",
                run.context.request_id,
                run.context.agent_id,
                outcome.error,
                f" [{type(cause).__name__} at {_place(cause)}]" if cause is not None else "",
            )
            self.announce(outcome.error, run.context)
        self._hooks.on_run_end(run.context, outcome)

    def announce(self, error: GatewayError, run: RunContext) -> None:
        """Tell every plugin of a run's error."""
        error.agent_id = run.agent_id
        error.request_id = run.request_id
        error.principal_id = run.principal.id
        self._hooks.on_error(error)


def _place(error: BaseException) -> str:
    """The file and line that raised it. Its text stays out of logs: it may hold prompts or a tool's arguments."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


class ActiveRun:
    """One run that is on, as an async context manager: leaving it ends the run."""

    def __init__(self, engine: Engine, request: RunRequest, scope: RunScope) -> None:
        self.context = request.run
        self._engine = engine
        self._request = request
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._last: Completed | Failed | None = None

    async def __aenter__(self) -> "ActiveRun":
        self._began = time.perf_counter()
        self._engine.entered(self)
        self._task = asyncio.create_task(self._engine.perform(self._request, self._scope))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._end()
        finally:
            outcome = Outcome(
                time.perf_counter() - self._began,
                self._scope.usage,
                error=self._last.error if isinstance(self._last, Failed) else None,
                cancelled=self._last is None,
            )
            self._engine.left(self, outcome)

    async def take(self, timeout: float | None = None) -> list[RunEvent]:
        """The events since the last call, at least one; none only when `timeout` seconds passed.

        The last one of all is `Completed` or `Failed`; do not call again after it.
        """
        events = await self._scope.channel.take(timeout)
        if events and isinstance(events[-1], Completed | Failed):
            self._last = events[-1]
        return events

    def stop(self, error: GatewayError) -> None:
        """End the run from outside; its reader gets the error."""
        if self._task is not None:
            self._task.cancel()
        self._scope.channel.put(Failed(error, self._scope.usage))

    async def _end(self) -> None:
        task = self._task
        if task is None or task.done():
            return
        task.cancel()
        # A tool that does not listen to its cancellation must not hold the request: the task ends by itself.
        await asyncio.wait([task], timeout=1.0)
