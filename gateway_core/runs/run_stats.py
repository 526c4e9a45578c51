"""How many runs an agent has had, and what became of the last one that failed. For operators; it decides nothing."""

import time
from typing import Any

from attrs import asdict, define, field, fields

from gateway_core.runs.run_scope import RunScope
from gateway_core.types import Outcome, RunContext


@define
class RunStats:
    """One agent's runs since the gateway started."""

    runs: int = 0
    active: int = 0
    failed: int = 0
    cancelled: int = 0
    last_error: dict[str, Any] | None = None
    """Of the last run that failed: `code`, `message`, `request_id`, and `at` in seconds since the epoch."""

    _left: list[RunScope] = field(factory=list)

    @property
    def tasks_left(self) -> int:
        """How many tasks are on that runs left behind when they ended."""
        self._left = [scope for scope in self._left if scope.tasks]
        return sum(scope.tasks for scope in self._left)

    def began(self) -> None:
        """A run began."""
        self.runs += 1
        self.active += 1

    def ended(self, run: RunContext, outcome: Outcome, scope: RunScope) -> None:
        """A run ended; what it started may go on."""
        if scope.tasks:
            self._left = [*(left for left in self._left if left.tasks), scope]
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
        """All of it."""
        facts = asdict(self, filter=lambda attribute, _: attribute != fields(RunStats)._left)
        return {**facts, "tasks_left": self.tasks_left}
