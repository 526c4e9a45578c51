"""Reloads the gateway when packages were installed while an agent lacks one.

An installation takes several steps, so the reload waits until the folders of packages no longer change.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable

from gateway_core import Gateway

logger = logging.getLogger(__name__)

SECONDS = 2.0
"""Interval of the checks."""
_FOLDERS = ("site-packages", "dist-packages")


async def reload_after_installation(gateway: Gateway, enabled: Callable[[], bool]) -> None:
    """Check the folders of packages until cancelled.

    Args:
        gateway: Is reloaded.
        enabled: Whether to reload.
    """
    before, changing = _stamp(), False
    while True:
        await asyncio.sleep(SECONDS)
        lacking = any(failure.error.code == "dependency" for failure in gateway.catalog.broken.values())
        now = _stamp()
        changed, before = now != before, now
        if not (lacking and enabled()):
            changing = False
        elif changed:
            changing = True
        elif changing:
            changing = False
            logger.info("packages were installed; reloading")
            try:
                await gateway.reload()
            except Exception:
                logger.exception("reload after an installation failed")


def _stamp() -> list[int]:
    """Return the times at which entries were added to or removed from the folders of packages."""
    found = []
    for folder in sys.path:
        if os.path.basename(folder) in _FOLDERS:
            try:
                found.append(os.stat(folder).st_mtime_ns)
            except OSError:
                continue
    return found
