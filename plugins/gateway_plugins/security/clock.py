"""A wall clock for display and files, and a steady clock for deadlines."""

import time
from collections.abc import Callable

from attrs import field, frozen


def _steady() -> float:
    # Linux's monotonic clock stops while the machine is suspended; an override granted for an hour must still expire.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


@frozen
class Clock:
    """The source of time; tests pass their own."""

    wall: Callable[[], float] = field(default=time.time)
    """Seconds since the epoch. It can jump when the system time is set."""
    steady: Callable[[], float] = field(default=_steady)
    """Seconds since an arbitrary point. It never goes backwards."""
