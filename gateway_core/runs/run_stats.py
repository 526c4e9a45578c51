"""Run statistics of an agent, for operators: counters and the error of its last failed run."""

import time
from typing import Any

from attrs import asdict, define, field, fields

from gateway_core.runs.run_scope import RunScope
from gateway_core.types import Outcome, RunContext


@define
class RunStats:
    """Statistics of one agent's runs since the gateway started."""

    runs: int = 0
    active: int = 0
    failed: int = 0
    cancelled: int = 0
    last_error: dict[str, Any] | None = None
    """The error of the last failed run: `code`, `message`, `request_id`, and `at` in seconds since the epoch."""

    _orphaned: list[RunScope] = field(factory=list)

    @property
    def tasks_left(self) -> int:
        """Number of orphaned tasks still running: tasks of runs that have ended."""
        self._orphaned = [scope for scope in self._orphaned if scope.tasks]
        return sum(scope.tasks for scope in self._orphaned)

    def began(self) -> None:
        """Record that a run started."""
        self.runs += 1
        self.active += 1

    def ended(self, run: RunContext, outcome: Outcome, scope: RunScope) -> None:
        """Record that a run ended; its tasks may still be running."""
        if scope.tasks:
            self._orphaned = [*(orphaned for orphaned in self._orphaned if orphaned.tasks), scope]
        self.active -= 1
        self.cancelled += outcome.cancelled
        if (error := outcome.error) is not None:
            self.failed += 1
            self.last_error = {
                "code": error.code,
                "message": error.message,
                "request_id": run.request_id,
                "at": time.time(),
            }

    def as_json(self) -> dict[str, Any]:
        """Return all statistics as a JSON-serializable object."""
        values = asdict(self, filter=lambda attribute, _: attribute != fields(RunStats)._orphaned)
        return {**values, "tasks_left": self.tasks_left}
