"""The failures that are remembered, each different one once.

Two failures are the same when they happened at the same stage, to the same agent, at the same place, in the same words.
"""

import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any

from attrs import asdict, define, field

from gateway_core import GatewayError

REQUESTS_KEPT = 100
"""How many requests' ids are kept for a failure that repeats."""

Fingerprint = tuple[Any, ...]


@define
class RecordedError:
    """A failure, without secrets, prompts or values."""

    stage: str
    kind: str
    """The class of the error, as in docs/reference/errors.md."""
    code: str
    message: str
    hint: str | None
    agent_id: str | None
    source: str | None
    """The file, table or entry point."""
    line: int | None
    traceback: list[dict[str, Any]]
    """Of what caused it, outermost first: `type` and the places `file:line function`. No values."""
    first_seen: float = field(factory=time.time)
    """Seconds since the epoch."""
    last_seen: float = 0.0
    count: int = 0
    principal_id: str | None = None
    """Of the last request that it happened to."""
    request_ids: list[str] = field(factory=list)
    """Of the last requests that it happened to, newest last."""

    def fingerprint(self) -> Fingerprint:
        """What makes it the same failure."""
        return self.stage, self.kind, self.code, self.agent_id, self.source, self.line, self.message

    def as_json(self) -> dict[str, Any]:
        """For the admin pages."""
        return asdict(self)


class ErrorRing:
    """A bounded collection.

    Args:
        capacity: How many different failures are kept.
        clock: Tells seconds since the epoch.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.time) -> None:
        self.capacity = capacity
        self.total = 0
        self._clock = clock
        self._errors: OrderedDict[Fingerprint, RecordedError] = OrderedDict()

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, error: GatewayError) -> None:
        """Remember a failure, or count it when it is known."""
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
        if error.request_id is not None:
            known.request_ids = [*deque((*known.request_ids, error.request_id), maxlen=REQUESTS_KEPT)]
        self.total += 1
        self._errors.move_to_end(new.fingerprint())
        self._forget()

    def resize(self, capacity: int) -> None:
        """Remember as many from now on."""
        self.capacity = capacity
        self._forget()

    def _forget(self) -> None:
        while len(self._errors) > self.capacity:
            self._errors.popitem(last=False)

    def entries(self) -> list[RecordedError]:
        """All of them, the one that was seen last first."""
        return [*reversed(self._errors.values())]

    def restore(self, errors: Iterable[RecordedError]) -> None:
        """Remember failures of an earlier process, given in the order of `entries`."""
        for error in reversed([*errors][: self.capacity]):
            self._errors[error.fingerprint()] = error

    def clear(self) -> None:
        """Forget all of them."""
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
