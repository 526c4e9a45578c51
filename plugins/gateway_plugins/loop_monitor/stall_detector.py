"""Detects a blocked event loop: the loop runs a regular heartbeat, and a thread checks whether it is late.

A heartbeat that is late because the whole process had to wait, on a busy machine, does not count. This module does not
depend on agents or logging; it reports through callbacks.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

WINDOW_SECONDS = 60.0
STUCK_SECONDS = 5.0
_BUCKET_SECONDS = 10.0


class StallDetector:
    """Monitors the running event loop, from `start` to `stop`.

    Args:
        threshold: Maximum delay of a heartbeat in seconds.
        on_blocked: Called once for each block, in the monitoring thread while the loop is blocked, with the innermost
            frame of the loop's thread.
        on_free: Called in the loop when it resumes, with the duration of the block in seconds.
        on_stuck: Called once for a block that lasts longer than `STUCK_SECONDS`, in the monitoring thread.
    """

    def __init__(
        self,
        threshold: float,
        on_blocked: Callable[[FrameType], None],
        on_free: Callable[[float], None],
        on_stuck: Callable[[], None] = lambda: None,
    ) -> None:
        self._threshold = threshold
        # A block that begins right after a heartbeat delays the next one by this much less than its duration.
        self._interval = threshold * 0.8
        self._on_blocked = on_blocked
        self._on_free = on_free
        self._on_stuck = on_stuck
        self._due = 0.0
        self._cpu = 0.0
        self._loop_clock: int | None = None
        # The due time of the late heartbeat that was reported.
        self._reported: float | None = None
        self._worst: deque[tuple[float, float]] = deque(maxlen=int(WINDOW_SECONDS / _BUCKET_SECONDS) + 1)
        self._timer: asyncio.TimerHandle | None = None
        # Held until `stop`: waiting for a lock costs less than waiting for an event.
        self._running = threading.Lock()
        self._running.acquire()
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> float:
        """Maximum delay of the loop in the last minute, in seconds."""
        since = time.monotonic() - WINDOW_SECONDS
        return max((late for began, late in [*self._worst] if began + _BUCKET_SECONDS > since), default=0.0)

    def start(self) -> None:
        """Start monitoring the current event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Not available on every system. Without it, every delay counts as a block.
        clock_of = getattr(time, "pthread_getcpuclockid", None)
        self._loop_clock = clock_of(self._loop_thread) if clock_of else None
        self._schedule(time.monotonic())
        self._thread = threading.Thread(target=self._monitor, name="loop-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop monitoring. No callbacks follow."""
        self._running.release()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _schedule(self, now: float) -> None:
        self._cpu = time.thread_time()
        self._due = now + self._interval
        self._timer = self._loop.call_later(self._interval, self._heartbeat)

    def _heartbeat(self) -> None:
        now = time.monotonic()
        late = max(0.0, now - self._due)
        self._record_lag(now, late)
        # Before the next heartbeat is scheduled: the time that the callback takes is not the agents' fault.
        if late >= self._threshold and (self._reported == self._due or self._is_working()):
            self._on_free(late)
        self._schedule(time.monotonic())

    def _record_lag(self, now: float, late: float) -> None:
        bucket = now - now % _BUCKET_SECONDS
        if self._worst and self._worst[-1][0] == bucket:
            if late > self._worst[-1][1]:
                self._worst[-1] = (bucket, late)
        else:
            self._worst.append((bucket, late))

    def _monitor(self) -> None:
        """Run in the thread: sleep until the next heartbeat would be late, and check whether it has run."""
        due = awaited = stuck = 0.0
        while True:
            if self._due != due:
                due = self._due
                awaited = due + self._threshold
            # A reported heartbeat is not checked again before it has run.
            wait = self._interval if self._reported == due else max(awaited - time.monotonic(), 0.0)
            if self._running.acquire(timeout=wait):
                return
            now = time.monotonic()
            if self._due == self._reported == due and stuck != due and now - due > STUCK_SECONDS:
                stuck = due
                self._on_stuck()
            if self._due != due or self._reported == due:
                continue
            if now - awaited > self._threshold / 2 and not self._is_working():
                # This thread was delayed as well, and the loop's thread is idle: check again.
                awaited = now + self._threshold
                continue
            self._reported = due
            frame = sys._current_frames().get(self._loop_thread)
            if frame is not None:
                self._on_blocked(frame)

    def _is_working(self) -> bool:
        """Whether the loop's thread has used the CPU for at least the threshold since its last heartbeat."""
        return self._loop_clock is None or time.clock_gettime(self._loop_clock) - self._cpu >= self._threshold
