"""Says in the log which keys are about to expire, once a day for each.

It refuses nothing; `keys.py` does when the time has come.
"""

import logging
from collections.abc import Iterable

from gateway_plugins.security.keys.key_ring import Key

logger = logging.getLogger(__name__)

DAY = 86400.0
WARNING_SECONDS = 7 * DAY


class ExpiryWarnings:
    """Remembers what was said of which key."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def look(self, keys: Iterable[Key], now: float) -> None:
        """Warn of the keys that have less than seven days left, if that was not done in the last day.

        Args:
            keys: All of them.
            now: Seconds since the epoch.
        """
        for key in keys:
            if not expiring(key, now) or now - self._said.get(key.id, 0.0) < DAY:
                continue
            self._said[key.id] = now
            assert key.expires is not None
            logger.warning(
                "the key %s (%s) of '%s' expires in %.1f days: make a new one with `agent-gateway keys create`",
                key.id,
                key.name,
                key.principal.id,
                (key.expires - now) / DAY,
            )


def expiring(key: Key, now: float) -> bool:
    """Whether a good key has less than seven days left."""
    return key.fault(now) is None and key.expires is not None and key.expires - now < WARNING_SECONDS
