"""Logs a daily warning for each key that is about to expire.

Expired keys are rejected in `keys/key_ring.py`.
"""

import logging
from collections.abc import Iterable

from gateway_plugins.security.keys.key_ring import Key

logger = logging.getLogger(__name__)

DAY = 86400.0
WARNING_SECONDS = 7 * DAY


class ExpiryWarnings:
    """Logs the warnings, at most once a day for each key."""

    def __init__(self) -> None:
        self._warned_at: dict[str, float] = {}

    def check(self, keys: Iterable[Key], now: float) -> None:
        """Log a warning for each key that expires within seven days, unless one was logged in the last day.

        Args:
            keys: All keys.
            now: Seconds since the epoch.
        """
        for key in keys:
            if not expiring(key, now) or now - self._warned_at.get(key.id, 0.0) < DAY:
                continue
            self._warned_at[key.id] = now
            assert key.expires is not None
            logger.warning(
                "the key %s (%s) of '%s' expires in %.1f days; create a new one with `agent-gateway keys create`",
                key.id,
                key.name,
                key.principal.id,
                (key.expires - now) / DAY,
            )


def expiring(key: Key, now: float) -> bool:
    """Whether a valid key expires within seven days."""
    return key.fault(now) is None and key.expires is not None and key.expires - now < WARNING_SECONDS
