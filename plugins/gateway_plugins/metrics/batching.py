"""Buffers measurements, because recording in batches costs about half as much as recording each one during a request.

An OpenTelemetry instrument takes 14 µs per recording during a request, and about 7 µs in a batch. Buffered measurements
are recorded before each collection, so readers always see them all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

Labels = Mapping[str, str | int]

MAX_PENDING = 256
"""Maximum number of buffered measurements; recording this many takes 2 ms."""


class Recorder:
    """Buffers histogram values. Call `record` from a single thread; `flush` is thread-safe."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Histogram, float, Labels]] = deque()

    def record(self, histogram: Histogram, value: float, labels: Labels) -> None:
        """Buffers a value. The caller must not modify the labels afterwards."""
        self._pending.append((histogram, value, labels))
        if len(self._pending) >= MAX_PENDING:
            self.flush()

    def flush(self) -> None:
        """Records all buffered values."""
        while self._pending:
            try:
                histogram, value, labels = self._pending.popleft()
            except IndexError:
                return  # another thread flushed the last value
            histogram.record(value, labels)


class Count:
    """A counter that is read at each collection.

    Args:
        meter: Creates the instrument.
        name: Name of the metric.
        unit: Unit in UCUM notation.
        description: Human-readable description.
        labels: Names of the labels.
    """

    def __init__(self, meter: Meter, name: str, unit: str, description: str, *labels: str) -> None:
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, *labels: str, count: int = 1) -> None:
        """Increments the counter.

        Args:
            labels: Label values, in the order of their names.
            count: The increment.
        """
        self._counts[labels] = self._counts.get(labels, 0) + count

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        # Copied atomically, because the event loop keeps counting in another thread.
        for values, count in self._counts.copy().items():
            yield Observation(count, dict(zip(self._labels, values, strict=True)))


def flushing(recorder: Recorder, observe: Callable[[], Iterable[Observation]]) -> Callable[..., Iterable[Observation]]:
    """Returns an instrument callback that flushes the recorder first; a collection starts with the callbacks."""

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        recorder.flush()
        yield from observe()

    return callback
