"""Watches an event loop from outside: a beat in the loop, and a thread that looks when the beat is late.

A loop that is late because the whole process had to wait, on a busy machine, is not blocked. It knows neither agents
nor logs; whoever made it is told.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

WINDOW_SECONDS = 60.0
_BUCKET_SECONDS = 10.0


class StallDetector:
    """The watch over the running event loop, from `start` to `stop`.

    Args:
        threshold: Seconds that a beat may be late.
        on_blocked: Called in the watching thread, once for each time that the loop is blocked, while it is; with the
            innermost frame of the loop's thread.
        on_free: Called in the loop when it goes on, with the seconds for which it was blocked.
    """

    def __init__(
        self, threshold: float, on_blocked: Callable[[FrameType], None], on_free: Callable[[float], None]
    ) -> None:
        self._threshold = threshold
        # A block that begins just after a beat is late by this much less than it takes.
        self._interval = threshold * 0.8
        self._on_blocked = on_blocked
        self._on_free = on_free
        self._due = 0.0
        self._cpu = 0.0
        self._loop_clock: int | None = None
        # The beat, by when it was due, for which it was told that the loop is blocked.
        self._told: float | None = None
        self._worst: deque[tuple[float, float]] = deque(maxlen=int(WINDOW_SECONDS / _BUCKET_SECONDS) + 1)
        self._timer: asyncio.TimerHandle | None = None
        # Held until the end: waiting for a lock costs less than waiting for an event.
        self._running = threading.Lock()
        self._running.acquire()
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> float:
        """By how many seconds the loop was late at the worst, within the last minute."""
        since = time.monotonic() - WINDOW_SECONDS
        return max((late for began, late in [*self._worst] if began + _BUCKET_SECONDS > since), default=0.0)

    def start(self) -> None:
        """Begin, in the event loop that is to be watched."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Not on every system. Where there is none, a loop that is late counts as blocked, whyever it is.
        clock_of = getattr(time, "pthread_getcpuclockid", None)
        self._loop_clock = clock_of(self._loop_thread) if clock_of else None
        self._schedule(time.monotonic())
        self._thread = threading.Thread(target=self._look, name="loop-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; no more is told."""
        self._running.release()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _schedule(self, now: float) -> None:
        self._cpu = time.thread_time()
        self._due = now + self._interval
        self._timer = self._loop.call_later(self._interval, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        late = max(0.0, now - self._due)
        self._note(now, late)
        # Before the next beat is due: what the announcement takes is not the agents' doing.
        if late >= self._threshold and (self._told == self._due or self._is_working()):
            self._on_free(late)
        self._schedule(time.monotonic())

    def _note(self, now: float, late: float) -> None:
        bucket = now - now % _BUCKET_SECONDS
        if self._worst and self._worst[-1][0] == bucket:
            if late > self._worst[-1][1]:
                self._worst[-1] = (bucket, late)
        else:
            self._worst.append((bucket, late))

    def _look(self) -> None:
        """In the thread: sleep until the beat that is due would be too late, and look whether it has come."""
        due = awaited = 0.0
        while True:
            if self._due != due:
                due = self._due
                awaited = due + self._threshold
            # A beat that was told to be late is not looked at again before it has come.
            wait = self._interval if self._told == due else max(awaited - time.monotonic(), 0.0)
            if self._running.acquire(timeout=wait):
                return
            if self._due != due or self._told == due:
                continue
            now = time.monotonic()
            if now - awaited > self._threshold / 2 and not self._is_working():
                # This thread was kept waiting as well, and the loop's does nothing: look again.
                awaited = now + self._threshold
                continue
            self._told = due
            frame = sys._current_frames().get(self._loop_thread)
            if frame is not None:
                self._on_blocked(frame)

    def _is_working(self) -> bool:
        """Whether the loop's thread has used the CPU for so long since its last beat."""
        return self._loop_clock is None or time.clock_gettime(self._loop_clock) - self._cpu >= self._threshold
