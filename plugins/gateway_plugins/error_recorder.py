"""Remembers the last failures of every stage, for operators to look up.

It keeps them in memory only, and never more than its capacity.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen

from gateway_core import Gateway, GatewayError, hookimpl


@frozen
class Settings:
    """`[plugins.error_recorder]`."""

    capacity: int = 500
    """How many failures are remembered; the oldest is forgotten first."""


@frozen
class RecordedError:
    """A failure, without secrets, prompts or arguments."""

    time: float
    """Seconds since the epoch."""
    stage: str
    kind: str
    code: str
    message: str
    source: str | None
    hint: str | None
    agent_id: str | None
    request_id: str | None
    principal_id: str | None


class ErrorRecorder:
    """The plugin `error_recorder`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._capacity = config.capacity
        self._errors: deque[RecordedError] = deque(maxlen=config.capacity)
        self._total = 0

    def reconfigure(self, config: Settings) -> None:
        """Take another capacity; the newest failures that fit into it are kept."""
        self._capacity = config.capacity
        self._errors = deque(self._errors, maxlen=config.capacity)

    @hookimpl
    def on_error(self, error: GatewayError) -> None:
        """Remember it."""
        self._total += 1
        self._errors.append(
            RecordedError(
                time=time.time(),
                stage=str(error.stage),
                kind=type(error).__name__,
                code=error.code,
                message=error.message,
                source=error.source,
                hint=error.hint,
                agent_id=error.agent_id,
                request_id=error.request_id,
                principal_id=error.principal_id,
            )
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How many there were, and those that are remembered, oldest first."""
        errors = [asdict(error) for error in self._errors]
        return {"total": self._total, "capacity": self._capacity, "errors": errors}
