"""An active run: admission, event stream, guaranteed cleanup.

The engine performs the run and reports its end.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

from gateway_core.config.settings import OnDisconnect
from gateway_core.errors import GatewayError
from gateway_core.runs.run_events import Completed, Failed, ReasoningDelta, RunEvent, TextDelta
from gateway_core.runs.run_request import RunRequest
from gateway_core.runs.run_scope import RunScope
from gateway_core.types import Outcome


class RunLifecycle(Protocol):
    """Performs runs and reports their ends; `runs/engine.py` implements it."""

    def admissions(self, request: RunRequest) -> list[AbstractAsyncContextManager[None]]:
        """The contexts to enter before the run may start."""

    def refuse_when_stopping(self) -> None:
        """Raise `UnavailableError` when the gateway is shutting down."""

    def entered(self, run: "ActiveRun") -> None:
        """Record that a run started."""

    async def perform(self, request: RunRequest, scope: RunScope) -> None:
        """Perform the run, and put its final event on the channel."""

    def left(self, run: "ActiveRun", scope: RunScope, outcome: Outcome) -> None:
        """Record that a run ended, and report it."""


class ActiveRun:
    """An active run, as an async context manager: leaving the context ends the run."""

    def __init__(
        self, lifecycle: RunLifecycle, request: RunRequest, scope: RunScope, on_disconnect: OnDisconnect
    ) -> None:
        self.context = request.run
        self.served = request.served
        self.live = request.live
        """Whether its answer is streamed."""
        self.on_disconnect = on_disconnect
        """Whether the run is cancelled, continues for a grace period or is detached when its client disconnects."""
        self._lifecycle = lifecycle
        self._request = request
        self._scope = scope
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._last: Completed | Failed | None = None
        self._recorded_events: list[RunEvent] = []
        self.closed = False
        self.handed_over = False
        """Whether the run outlives its context; its new owner must call `close`."""
        self.client_left = False
        """Whether the client disconnected before the answer was complete."""
        self.keep_alives = 0
        """Number of keep-alive comments sent while the run produced no events."""
        self._first_token: float | None = None
        self._admissions: Sequence[AbstractAsyncContextManager[None]] = ()
        """The contexts to leave when the run ends."""

    async def __aenter__(self) -> "ActiveRun":
        # A run that is not admitted does not count as started: only its error is announced, by the request handler.
        admissions = self._lifecycle.admissions(self._request)
        async with AsyncExitStack() as admitted:
            for admission in admissions:
                await admitted.enter_async_context(admission)
            # Shutdown may have begun while admission was pending.
            self._lifecycle.refuse_when_stopping()
            admitted.pop_all()
        self._admissions = admissions
        self._began = time.perf_counter()
        self._lifecycle.entered(self)
        self._task = asyncio.create_task(self._lifecycle.perform(self._request, self._scope))
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.handed_over:
            await self.close()

    @property
    def over(self) -> bool:
        """Whether its final event was taken."""
        return self._last is not None

    @property
    def acted(self) -> bool:
        """Whether a tool has started, so that running the request again could repeat its effects."""
        return self._scope.tool_calls > 0

    @property
    def ignored_tools(self) -> Sequence[str]:
        """Names of the client's tools that were not offered to the agent; `*` for all of them."""
        tools = self._scope.client_tools
        return (*self._request.ignored_tools, *(tools.conflicts if tools is not None else ()))

    @property
    def ignored_attachments(self) -> Sequence[str]:
        """Types of the attachments of the last user message that a workflow which has ended passed to no run."""
        workflow = self._scope.workflow
        if workflow is None or workflow.attached or not self.over:
            return ()
        return [part["type"].removeprefix("input_") for part in workflow.attachments]

    @property
    def recorded_events(self) -> Sequence[RunEvent]:
        """All events taken so far, if the run may outlive its client; otherwise empty."""
        return self._recorded_events

    async def close(self) -> None:
        """End the run in any state, and report its outcome. Idempotent."""
        if self.closed:
            return
        self.closed = True
        try:
            await self._end()
        finally:
            outcome = Outcome(
                time.perf_counter() - self._began,
                self._scope.usage,
                error=self._last.error if isinstance(self._last, Failed) else None,
                cancelled=self._last is None,
                client_left=self.client_left,
                first_token_seconds=self._first_token,
                keep_alives=self.keep_alives,
            )
            self._lifecycle.left(self, self._scope, outcome)
            async with AsyncExitStack() as admitted:
                for admission in self._admissions:
                    admitted.push_async_exit(admission)

    async def take(self, timeout: float | None = None) -> list[RunEvent]:
        """Wait for and return the events since the last call; an empty list if `timeout` seconds pass without one.

        The final event is `Completed` or `Failed`; do not call this again after it.
        """
        events = await self._scope.channel.take(timeout)
        if self._first_token is None and any(isinstance(event, TextDelta | ReasoningDelta) for event in events):
            self._first_token = time.perf_counter() - self._began
        if self.on_disconnect != "cancel":
            self._recorded_events += events
        if events and isinstance(last := events[-1], Completed | Failed):
            self._last = last
            if isinstance(last, Failed) and self.acted:
                last.error.after_tool()
        return events

    def stop(self, error: GatewayError) -> None:
        """Cancel the run; its reader receives the error."""
        if self._task is not None:
            self._task.cancel()
        self._scope.channel.put(Failed(error, self._scope.usage))

    async def _end(self) -> None:
        task = self._task
        if task is None or task.done():
            return
        task.cancel()
        # A tool that ignores its cancellation must not block the request: stop waiting for its task after this time.
        await asyncio.wait([task], timeout=1.0)
