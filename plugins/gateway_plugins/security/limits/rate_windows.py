"""Counts requests per minute in memory, or in a shared storage of the `limits` library.

While the shared storage does not respond, requests are counted in memory. The library's own in-memory storage uses the
wall clock: after the clock is set back an hour, it refuses requests for an hour. Counts in memory use a steady clock.

Limits are enforced in `limits/admission.py`.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

from gateway_core import ConfigError, GatewayError
from gateway_plugins.security.clock import Clock

if TYPE_CHECKING:
    from limits.aio.storage import Storage

logger = logging.getLogger(__name__)

MEMORY = "memory://"
MINUTE = 60.0

_TIMEOUT_SECONDS = 0.2
_RETRY_SECONDS = 30.0
_PRUNE_AT = 1024


@frozen
class Window:
    """The state of a one-minute window after a request was counted."""

    limit: int
    remaining: int
    resets_in: float
    """Seconds."""
    exceeded: bool


@define
class _Count:
    amount: int
    until: float
    """Seconds on the steady clock."""


class Windows:
    """The rate limit windows of one gateway.

    Args:
        storage: The URI of a storage of the `limits` library, such as `redis://host`; `memory://` is in-process.
        report: Called with an error when the storage does not respond.
        clock: The source of time.
    """

    def __init__(self, storage: str, report: Callable[[GatewayError], None], clock: Clock) -> None:
        self._clock = clock
        self._report = report
        self._uri = storage
        self._pool: Any = None
        self._shared: Storage | None = None
        self._retry_at = 0.0
        self._local: dict[tuple[str, str], _Count] = {}
        self._prune_at = _PRUNE_AT

    def open(self) -> None:
        """Create the client of a shared storage. It connects when it counts.

        Raises:
            ConfigError: The storage is not supported, or its client library is not installed.
        """
        if self._uri != MEMORY:
            self._shared, self._pool = _shared_storage(self._uri)

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
        if self._shared is not None and self.shared:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    return await self._count_shared(self._shared, limit, kind, name)
            except Exception as error:
                self._open_circuit(error)
        return self._count_locally(limit, kind, name)

    async def _count_shared(self, storage: "Storage", limit: int, kind: str, name: str) -> Window:
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(limit, namespace="agent-gateway")
        key = item.key_for(kind, name)
        amount = await storage.incr(key, item.get_expiry())
        return _window(limit, amount, await storage.get_expiry(key) - self._clock.wall())

    def _count_locally(self, limit: int, kind: str, name: str) -> Window:
        now = self._clock.steady()
        count = self._local.get((kind, name))
        if count is None or now >= count.until:
            self._prune(now)
            count = self._local[kind, name] = _Count(0, now + MINUTE)
        count.amount += 1
        return _window(limit, count.amount, count.until - now)

    def _prune(self, now: float) -> None:
        # Clients can send failing requests from many addresses, so expired counts must be removed.
        if len(self._local) >= self._prune_at:
            self._local = {key: count for key, count in self._local.items() if now < count.until}
            self._prune_at = max(_PRUNE_AT, 2 * len(self._local))

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


def _window(limit: int, amount: int, resets_in: float) -> Window:
    return Window(limit, max(0, limit - amount), min(max(resets_in, 0.0), MINUTE), exceeded=amount > limit)


def whole_seconds(seconds: float) -> int:
    """Round up to whole seconds, at least one, so that a client that waits this long does not retry too early."""
    return max(1, math.ceil(seconds))


def _shared_storage(uri: str) -> "tuple[Storage, Any]":
    """Create a storage, with our own connection pool for a single Redis server, so that we can close it."""
    # Imported here because the import takes 90 ms, and counts in memory do not need it.
    from limits.aio.storage import Storage
    from limits.errors import ConfigurationError
    from limits.storage import storage_from_string

    plain, pool = uri.removeprefix("async+"), None
    options: dict[str, Any] = {}
    try:
        if plain.startswith(("redis://", "rediss://", "redis+unix://")):
            pool = import_module("redis.asyncio").ConnectionPool.from_url(plain.replace("redis+unix", "unix"))
            options = {"implementation": "redispy", "connection_pool": pool}
        storage = storage_from_string(f"async+{plain}", **options)
    except (ConfigurationError, ImportError, ValueError) as error:
        # The URI may contain a password, so neither the URI nor the library's message is shown.
        raise ConfigError(
            f"unusable storage of limits: {type(error).__name__}",
            source="[plugins.security.limits] storage",
            hint="use memory://, or a URI such as redis://host:6379 with `pip install redis`",
        ) from error
    assert isinstance(storage, Storage)
    return storage, pool
