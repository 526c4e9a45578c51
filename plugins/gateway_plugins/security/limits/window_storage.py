"""An in-memory storage for the `limits` library that uses a steady clock.

The library's own in-memory storage uses the wall clock: after the clock is set back an hour, it refuses requests for an
hour.
"""

from attrs import define
from limits.aio.storage import Storage

from gateway_plugins.security.clock import Clock

_PRUNE_AT = 1024


@define
class _Count:
    amount: int
    until: float
    """Seconds on the steady clock."""


class WindowStorage(Storage):
    """The counts of one process; each expires with its window.

    Args:
        clock: The source of time.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._prune_at = _PRUNE_AT

    @property
    def base_exceptions(self) -> type[Exception]:
        """Required by the base class; no operation raises it."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount`; a window starts with its first count and lasts `expiry` seconds."""
        count = self._live(key)
        if count is None:
            self._prune()
            count = self._counts[key] = _Count(0, self._clock.steady() + expiry)
        count.amount += amount
        return count.amount

    async def get(self, key: str) -> int:
        """Return the count of the current window."""
        count = self._live(key)
        return count.amount if count else 0

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window in seconds since the epoch."""
        count = self._live(key)
        return self._clock.wall() + (count.until - self._clock.steady() if count else 0.0)

    async def check(self) -> bool:
        """Return true: the storage is always available."""
        return True

    async def reset(self) -> int:
        """Delete all counts and return their number."""
        deleted = len(self._counts)
        self._counts.clear()
        return deleted

    async def clear(self, key: str) -> None:
        """Delete a count."""
        self._counts.pop(key, None)

    def _live(self, key: str) -> _Count | None:
        count = self._counts.get(key)
        return count if count is not None and self._clock.steady() < count.until else None

    def _prune(self) -> None:
        # Clients can send failing requests from many addresses, so expired counts must be removed.
        if len(self._counts) < self._prune_at:
            return
        now = self._clock.steady()
        self._counts = {key: count for key, count in self._counts.items() if now < count.until}
        self._prune_at = max(_PRUNE_AT, 2 * len(self._counts))
