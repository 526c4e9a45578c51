"""A bounded collection of errors without duplicates.

Two errors are duplicates if they have the same stage, class, code, agent, source location and message.
"""

import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from attrs import asdict, define, field

from gateway_core import GatewayError

REQUESTS_KEPT = 100
"""Maximum number of request ids stored for a repeated error."""

Fingerprint = tuple[Any, ...]


@define
class RecordedError:
    """A recorded error, without secrets, prompts or values."""

    stage: str
    kind: str
    """The error's class name, as in docs/reference/errors.md."""
    code: str
    message: str
    hint: str | None
    agent_id: str | None
    source: str | None
    """The file, configuration table or entry point that caused the error."""
    line: int | None
    traceback: list[dict[str, Any]]
    """The chain of causes, outermost first: `type`, and `stack` as `file:line function`. No values."""
    upstream: dict[str, Any] | None = None
    """The reason that a model server gave: `status`, `code`, `message`; of the last occurrence."""
    first_seen: float = field(factory=time.time)
    """Seconds since the epoch."""
    last_seen: float = 0.0
    count: int = 0
    principal_id: str | None = None
    """The principal of the last affected request."""
    request_ids: list[str] = field(factory=list)
    """Ids of the last affected requests, newest last."""

    def fingerprint(self) -> Fingerprint:
        """Returns the values that identify duplicates."""
        return self.stage, self.kind, self.code, self.agent_id, self.source, self.line, self.message


class ErrorRing:
    """A bounded collection of errors, ordered by last occurrence.

    Args:
        capacity: Maximum number of distinct errors.
        clock: Returns the time in seconds since the epoch.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.time) -> None:
        self.capacity = capacity
        self.total = 0
        self._clock = clock
        self._errors: OrderedDict[Fingerprint, RecordedError] = OrderedDict()

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, error: GatewayError) -> None:
        """Records an error, or increments the count of a duplicate."""
        new = RecordedError(
            stage=str(error.stage),
            kind=type(error).__name__,
            code=error.code,
            message=error.message,
            hint=error.hint,
            agent_id=error.agent_id,
            source=error.source,
            line=getattr(error, "line", None),
            traceback=_causes(error),
            first_seen=self._clock(),
        )
        known = self._errors.setdefault(new.fingerprint(), new)
        known.count += 1
        known.last_seen = self._clock()
        known.principal_id = error.principal_id
        known.upstream = asdict(error.upstream) if error.upstream is not None else None
        if error.request_id is not None:
            known.request_ids = [*deque((*known.request_ids, error.request_id), maxlen=REQUESTS_KEPT)]
        self.total += 1
        self._errors.move_to_end(new.fingerprint())
        self._evict()

    def resize(self, capacity: int) -> None:
        """Changes the capacity, and removes the least recent errors beyond it."""
        self.capacity = capacity
        self._evict()

    def _evict(self) -> None:
        while len(self._errors) > self.capacity:
            self._errors.popitem(last=False)

    def entries(self) -> list[RecordedError]:
        """Returns all errors, most recent first."""
        return [*reversed(self._errors.values())]

    def restore(self, errors: Iterable[RecordedError]) -> None:
        """Restores the errors of an earlier process, given in the order of `entries`."""
        for error in reversed([*errors][: self.capacity]):
            self._errors[error.fingerprint()] = error

    def clear(self) -> None:
        """Removes all errors."""
        self._errors.clear()


def _causes(error: BaseException) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cause = error.__cause__
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)
        found.append(
            {
                "type": f"{type(cause).__module__}.{type(cause).__qualname__}",
                "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            }
        )
        cause = cause.__cause__ or cause.__context__
    return found
