"""Detects event-loop blocking and names the agent.

It does not interrupt the code. Reports contain files, lines and functions from the stack, but no values.
"""

import itertools
import logging
import os
import traceback
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
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
from gateway_plugins.loop_monitor.stall_detector import StallDetector

logger = logging.getLogger(__name__)

MIN_SECONDS = 0.01
MAX_FRAMES = 40
_HINT = "use a plain function, which runs in a thread, or await an async call instead of blocking"
_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages", "gateway_core"))
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


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
        code = f"tool {self.tool}" if self.tool else self.function
        return f"{code} of agent {self.agent_id}" if self.agent_id else code


class LoopMonitor:
    """The plugin `loop_monitor`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if config.threshold < MIN_SECONDS:
            raise ConfigError(f"must be at least {MIN_SECONDS:g} s", source="[plugins.loop_monitor] threshold")
        self._gateway = gateway
        self._detector = StallDetector(config.threshold, self._blocked, self._free)
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
        """Log a block, in the monitoring thread. The loop may never resume, so it is logged immediately."""
        if not self._gateway.catalog.generation:
            return  # No requests are served yet.
        run, tool = attributed_run(frame)
        stack = [each for each, _ in itertools.islice(traceback.walk_stack(frame), MAX_FRAMES)]
        owner, culprit = self._owner(stack)
        agent_id = run.agent_id if run else owner
        place, function = _place(culprit), culprit.f_code.co_name
        self._culprit = found = _Culprit(place, function, run, agent_id, tool)
        with in_log_context(request_id=run.request_id if run else None, agent_id=agent_id):
            lines = "\n".join(f"  {_place(each)} {each.f_code.co_name}" for each in stack)
            logger.warning("event loop blocked by %s at %s; stack, innermost frame first:\n%s", found, place, lines)

    def _free(self, seconds: float) -> None:
        """Count and report a block, in the loop, after it resumed."""
        culprit, self._culprit = self._culprit, None
        if not self._gateway.catalog.generation:
            return
        self._blocks += 1
        self._seconds += seconds
        if culprit is None or culprit.agent_id is None:
            # Not caused by an agent: it is only measured and logged.
            logger.warning("event loop was blocked for %.1f s by %s", seconds, culprit or "unknown code")
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

    def _owner(self, stack: list[FrameType]) -> tuple[str | None, FrameType]:
        """Return the agent with the innermost frame in a stack, and the responsible frame: that one, or else the
        innermost frame that is not in a library."""
        files = {agent.entry.source: agent.id for agent in self._gateway.catalog.agents.values()}
        folders = {
            agent.entry.folder: agent.id for agent in self._gateway.catalog.agents.values() if agent.entry.folder
        }
        for frame in stack:
            path = Path(frame.f_code.co_filename)
            agent_id = files.get(str(path)) or next((folders[f] for f in path.parents if f in folders), None)
            if agent_id is not None:
                return agent_id, frame
        return None, _called_by_sdk(stack) or next((frame for frame in stack if not _is_library(frame)), stack[0])


def _called_by_sdk(stack: list[FrameType]) -> FrameType | None:
    """Return the frame that the SDK called, such as a tool of an agent that is installed as a library."""
    for inner, outer in itertools.pairwise(stack):
        if _is_sdk(outer):
            return None if _is_sdk(inner) else inner
    return None


def _is_sdk(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("agents.")


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_STANDARD_LIBRARY, "<")) or any(part in file for part in _LIBRARIES)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
