"""Counts requests per minute in the configured storage, with a fallback to memory while the storage does not respond.

Limits are enforced in `limits/admission.py`.
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

_TIMEOUT_SECONDS = 0.2
_RETRY_SECONDS = 30.0


@frozen
class Window:
    """The state of a one-minute window after a request was counted."""

    limit: int
    remaining: int
    resets_in: float
    """Seconds."""
    exceeded: bool


class Windows:
    """The rate limit windows of one gateway.

    Args:
        storage: The URI of a storage of the `limits` library, such as `redis://host`; `memory://` is in-process.
        report: Called with an error when the storage does not respond.
        clock: The source of time.

    Raises:
        ConfigError: The storage is not supported, or its client library is not installed.
    """

    def __init__(self, storage: str, report: Callable[[GatewayError], None], clock: Clock) -> None:
        self._clock = clock
        self._report = report
        self._local = FixedWindowRateLimiter(WindowStorage(clock))
        self._pool = _redis_pool(storage)
        self._shared = None if storage == MEMORY else FixedWindowRateLimiter(_shared_storage(storage, self._pool))
        self._retry_at = 0.0

    async def close(self) -> None:
        """Close the connections to the storage."""
        if self._pool is not None:
            await self._pool.disconnect()

    @property
    def shared(self) -> bool:
        """Whether counts are currently shared with other gateways."""
        return self._shared is not None and self._clock.steady() >= self._retry_at

    async def count(self, limit: int, kind: str, name: str) -> Window:
        """Count one event.

        Args:
            limit: Maximum number of events per minute.
            kind: The kind of counter, such as `agent`.
            name: The name of the counter within its kind.
        """
        item = RateLimitItemPerMinute(limit, namespace="agent-gateway")
        if self._shared is not None and self.shared:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    return await self._count(self._shared, item, kind, name)
            except Exception as error:
                self._open_circuit(error)
        return await self._count(self._local, item, kind, name)

    async def _count(
        self, limiter: FixedWindowRateLimiter, item: RateLimitItemPerMinute, kind: str, name: str
    ) -> Window:
        within = await limiter.hit(item, kind, name)
        stats = await limiter.get_window_stats(item, kind, name)
        resets_in = min(max(stats.reset_time - self._clock.wall(), 0.0), MINUTE)
        return Window(item.amount, stats.remaining, resets_in, exceeded=not within)

    def _open_circuit(self, error: Exception) -> None:
        """Open the circuit breaker: requests must not wait for a storage that does not respond."""
        self._retry_at = self._clock.steady() + _RETRY_SECONDS
        problem = GatewayError(
            "the storage of limits does not respond; each gateway counts on its own",
            hint=f"the gateway retries after {_RETRY_SECONDS:g} s",
            code="limit_storage_failed",
        )
        problem.__cause__ = error
        self._report(problem)


def whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least one, so that a client that waits this long does not retry too early."""
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
    """Our own connection pool, so that we can close it; `None` for any storage but a single Redis server."""
    plain = uri.removeprefix("async+")
    if not plain.startswith(("redis://", "rediss://", "redis+unix://")):
        return None
    try:
        pool = import_module("redis.asyncio").ConnectionPool
        return pool.from_url(plain.replace("redis+unix", "unix"))
    except (ImportError, ValueError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> ConfigError:
    # The URI may contain a password, so neither the URI nor the library's message is shown.
    return ConfigError(
        f"unusable storage of limits: {type(error).__name__}",
        source="[plugins.security.limits] storage",
        hint="use memory://, or a URI such as redis://host:6379 with `pip install redis`",
    )
