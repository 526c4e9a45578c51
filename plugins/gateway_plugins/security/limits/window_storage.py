"""Counts in memory, for the `limits` library, by a clock that never goes back.

The library's own storage in memory goes by the clock that operators set: set back an hour, it refuses for an hour.
"""

from attrs import define
from limits.aio.storage import Storage

from gateway_plugins.security.clock import Clock

_PRUNE_AT = 1024


@define
class _Count:
    amount: int
    until: float
    """By the steady clock."""


class WindowStorage(Storage):
    """One process's counts, each over when its window is.

    Args:
        clock: Where the time comes from.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._prune_at = _PRUNE_AT

    @property
    def base_exceptions(self) -> type[Exception]:
        """None: nothing here can fail."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count; a window begins with its first count and lasts `expiry` seconds."""
        count = self._live(key)
        if count is None:
            self._prune()
            count = self._counts[key] = _Count(0, self._clock.steady() + expiry)
        count.amount += amount
        return count.amount

    async def get(self, key: str) -> int:
        """The count."""
        count = self._live(key)
        return count.amount if count else 0

    async def get_expiry(self, key: str) -> float:
        """When the window is over, in seconds since the epoch."""
        count = self._live(key)
        return self._clock.wall() + (count.until - self._clock.steady() if count else 0.0)

    async def check(self) -> bool:
        """It always works."""
        return True

    async def reset(self) -> int:
        """Forget all."""
        forgotten = len(self._counts)
        self._counts.clear()
        return forgotten

    async def clear(self, key: str) -> None:
        """Forget one."""
        self._counts.pop(key, None)

    def _live(self, key: str) -> _Count | None:
        count = self._counts.get(key)
        return count if count is not None and self._clock.steady() < count.until else None

    def _prune(self) -> None:
        # Anybody may send failing requests from many addresses; what is over must not be kept.
        if len(self._counts) < self._prune_at:
            return
        now = self._clock.steady()
        self._counts = {key: count for key, count in self._counts.items() if now < count.until}
        self._prune_at = max(_PRUNE_AT, 2 * len(self._counts))
