"""The two clocks of whatever lasts for a time: one for people and files, one for deadlines.

It keeps no time itself.
"""

import time
from collections.abc import Callable

from attrs import field, frozen


def _steady() -> float:
    # Linux's monotonic clock stands still while the machine sleeps; what was granted for an hour must not.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


@frozen
class Clock:
    """Where the time comes from; tests bring their own."""

    wall: Callable[[], float] = field(default=time.time)
    """Seconds since the epoch. Operators set it, so it may jump."""
    steady: Callable[[], float] = field(default=_steady)
    """Seconds since some moment. It never goes back."""
