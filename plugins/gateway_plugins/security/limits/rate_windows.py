"""How many in this minute? Counted where the operator says; in memory while that does not answer.

It refuses nothing; `limits.py` does.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

from attrs import frozen
from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from gateway_core import ConfigError, GatewayError
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.limits.window_storage import WindowStorage

logger = logging.getLogger(__name__)

MEMORY = "memory://"
MINUTE = 60.0

_ANSWER_SECONDS = 0.2
_AGAIN_SECONDS = 30.0


@frozen
class Window:
    """A minute's count, after one more."""

    limit: int
    remaining: int
    resets_in: float
    """Seconds."""
    exceeded: bool


class Windows:
    """The counts of one gateway.

    Args:
        storage: The URI of a storage of the `limits` library, such as `redis://host`; `memory://` counts here.
        report: Told when the storage does not answer.
        clock: Where the time comes from.

    Raises:
        ConfigError: There is no such storage, or its client is not installed.
    """

    def __init__(self, storage: str, report: Callable[[GatewayError], None], clock: Clock) -> None:
        self._clock = clock
        self._report = report
        self._local = FixedWindowRateLimiter(WindowStorage(clock))
        self._pool = _redis_pool(storage)
        self._shared = None if storage == MEMORY else FixedWindowRateLimiter(_shared_storage(storage, self._pool))
        self._again_at = 0.0

    async def close(self) -> None:
        """Let go of the storage's connections."""
        if self._pool is not None:
            await self._pool.disconnect()

    @property
    def shared(self) -> bool:
        """Whether counts are shared with other gateways at this moment."""
        return self._shared is not None and self._clock.steady() >= self._again_at

    async def count(self, limit: int, kind: str, name: str) -> Window:
        """Count one more.

        Args:
            limit: How many there may be in a minute.
            kind: What is counted, such as `agent`.
            name: Of which one.
        """
        item = RateLimitItemPerMinute(limit, namespace="agent-gateway")
        if self._shared is not None and self.shared:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await self._count(self._shared, item, kind, name)
            except Exception as error:
                self._open(error)
        return await self._count(self._local, item, kind, name)

    async def _count(
        self, limiter: FixedWindowRateLimiter, item: RateLimitItemPerMinute, kind: str, name: str
    ) -> Window:
        within = await limiter.hit(item, kind, name)
        stats = await limiter.get_window_stats(item, kind, name)
        resets_in = min(max(stats.reset_time - self._clock.wall(), 0.0), MINUTE)
        return Window(item.amount, stats.remaining, resets_in, exceeded=not within)

    def _open(self, error: Exception) -> None:
        """Let the storage be for a while: a request must not wait for what does not answer."""
        self._again_at = self._clock.steady() + _AGAIN_SECONDS
        problem = GatewayError(
            "the storage of limits does not answer; each gateway counts for itself",
            hint=f"it is tried again after {_AGAIN_SECONDS:g} s",
            code="limit_storage_failed",
        )
        problem.__cause__ = error
        self._report(problem)


def seconds_up(seconds: float) -> int:
    """Whole seconds, at least one: who comes back after them is not too early."""
    return max(1, math.ceil(seconds))


def _shared_storage(uri: str, pool: Any) -> Storage:
    options: dict[str, Any] = {"implementation": "redispy", "connection_pool": pool} if pool is not None else {}
    try:
        storage = storage_from_string(uri if uri.startswith("async+") else f"async+{uri}", **options)
    except (ConfigurationError, ImportError) as error:
        raise _unusable(error) from error
    assert isinstance(storage, Storage)
    return storage


def _redis_pool(uri: str) -> Any:
    """Connections to Redis that are ours to close; `None` for a storage that is not one plain Redis."""
    plain = uri.removeprefix("async+")
    if not plain.startswith(("redis://", "rediss://", "redis+unix://")):
        return None
    try:
        pool = import_module("redis.asyncio").ConnectionPool
        return pool.from_url(plain.replace("redis+unix", "unix"))
    except (ImportError, ValueError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> ConfigError:
    # The URI may hold a password, so it is not told, nor what the library says of it.
    return ConfigError(
        f"the storage of limits cannot be used: {type(error).__name__}",
        source="[plugins.security.limits] storage",
        hint="memory://, or such as redis://host:6379 with `pip install redis`",
    )
