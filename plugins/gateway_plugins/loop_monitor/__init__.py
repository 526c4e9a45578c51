"""Detects event-loop blocking and names the agent.

It does not interrupt the code. Reports contain files, lines and functions from the stack, but no values. A block is an
agent's if the loop executes code of its module, or a library that this code called; `attribution.py` decides it.
"""

import itertools
import logging
import traceback
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

from attrs import frozen

from gateway_core import (
    ConfigError,
    Gateway,
    GatewayError,
    Measurement,
    RunContext,
    Seconds,
    attributed_run,
    hookimpl,
    in_log_context,
)
from gateway_plugins.loop_monitor.attribution import responsible
from gateway_plugins.loop_monitor.stall_detector import StallDetector

logger = logging.getLogger(__name__)

MIN_SECONDS = 0.01
MAX_FRAMES = 40
_HINT = "use a plain function, which runs in a thread, or await an async call instead of blocking"


@frozen
class Settings:
    """`[plugins.loop_monitor]`."""

    threshold: Seconds = Seconds(0.25)
    """Delay from which on the event loop counts as blocked."""


@frozen
class _Culprit:
    """The code that blocks the loop."""

    place: str
    """File and line."""
    function: str
    run: RunContext | None
    agent_id: str | None
    tool: str | None

    def __str__(self) -> str:
        if self.agent_id is None:
            return f"{self.function} at {self.place}"
        return (
            f"tool {self.tool} of agent {self.agent_id}" if self.tool else f"{self.function} of agent {self.agent_id}"
        )


class LoopMonitor:
    """The plugin `loop_monitor`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if config.threshold < MIN_SECONDS:
            raise ConfigError(
                f"must be at least {MIN_SECONDS:g} s", source="[plugins.loop_monitor] threshold", hint='try "250ms"'
            )
        self._gateway = gateway
        self._detector = StallDetector(config.threshold, self._blocked, self._free, self._stuck)
        self._culprit: _Culprit | None = None
        self._blocks = 0
        self._seconds = 0.0

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Monitor the loop while the gateway runs."""
        self._detector.start()
        try:
            yield
        finally:
            self._detector.stop()

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Yield the delay of the loop, and the number and duration of blocks."""
        name = "agent_gateway.event_loop"
        yield Measurement(f"{name}.lag", self._detector.lag, "s", "Maximum delay of the event loop in the last minute.")
        yield Measurement(f"{name}.blocks", self._blocks, "{block}", "Number of event-loop blocks.", total=True)
        yield Measurement(f"{name}.blocked", self._seconds, "s", "Total time of event-loop blocks.", total=True)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the delay of the loop, and the number and duration of blocks."""
        return {"lag": round(self._detector.lag, 3), "blocks": self._blocks, "blocked_seconds": round(self._seconds, 3)}

    def _blocked(self, frame: FrameType) -> None:
        """Determine the cause of a block, in the monitoring thread."""
        if not self._gateway.catalog.generation:
            return  # No requests are served yet.
        run, tool = attributed_run(frame)
        stack = [each for each, _ in itertools.islice(traceback.walk_stack(frame), MAX_FRAMES)]
        agent_id, frame = responsible(stack, self._gateway.catalog, run)
        self._culprit = found = _Culprit(_place(frame), frame.f_code.co_name, run, agent_id, tool)
        if logger.isEnabledFor(logging.DEBUG):
            lines = "\n".join(f"  {_place(each)} {each.f_code.co_name}" for each in stack)
            with in_log_context(request_id=run.request_id if run else None, agent_id=agent_id):
                logger.debug("event loop blocked by %s; stack, innermost frame first:\n%s", found, lines)

    def _stuck(self) -> None:
        """Log a block that lasts, in the monitoring thread, because the loop may never resume."""
        if (culprit := self._culprit) is not None:
            with in_log_context(request_id=culprit.run.request_id if culprit.run else None, agent_id=culprit.agent_id):
                logger.warning("event loop is still blocked by %s (%s)", culprit, culprit.place)

    def _free(self, seconds: float) -> None:
        """Count and report a block, in the loop, after it resumed."""
        culprit, self._culprit = self._culprit, None
        if not self._gateway.catalog.generation:
            return
        self._blocks += 1
        self._seconds += seconds
        if culprit is None or culprit.agent_id is None:
            # Not caused by an agent: it is only measured and logged.
            logger.info("event loop was blocked for %.1f s by %s", seconds, culprit or "unknown code")
            return
        error = GatewayError(
            f"event loop was blocked for {seconds:.1f} s by {culprit}",
            source=culprit.place,
            hint=_HINT,
            code="event_loop_blocked",
        )
        error.agent_id = culprit.agent_id
        error.request_id = culprit.run.request_id if culprit.run else None
        error.principal_id = culprit.run.principal.id if culprit.run else None
        with in_log_context(request_id=error.request_id, agent_id=error.agent_id):
            self._gateway.report(error)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
