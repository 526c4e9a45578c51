"""Prepares the process of the server, and ends it."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import threading
from collections.abc import Callable, Sequence

from gateway_core.errors import ConfigError

logger = logging.getLogger(__name__)

MIN_OPEN_FILES = 4096
MAX_OPEN_FILES = 65536

M_MMAP_THRESHOLD = -3
"""https://man7.org/linux/man-pages/man3/mallopt.3.html"""
LARGE_BLOCK_BYTES = 1024 * 1024

# Time that other threads have to end at exit.
_THREADS_SECONDS = 2.0


def raise_open_file_limit() -> None:
    """Raise the limit of open files, because each connection needs one.

    Raises:
        ConfigError: The maximum of the system is too low for a server.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        raise ConfigError(
            f"the limit of open files ({soft}) is too low for a server",
            source="ulimit -n",
            hint=f"raise it to at least {MIN_OPEN_FILES}",
        )


def return_large_blocks() -> None:
    """Make the C library return freed blocks to the system from 1 MiB on; by default, it keeps up to 64 MiB of them."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries have no such setting
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def freeze_memory() -> None:
    """Collect garbage once and freeze the remaining objects, so that later collections skip them."""
    gc.collect()
    gc.freeze()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        from uvloop import new_event_loop
    except ImportError:  # not available on Windows
        return None
    return new_event_loop


def has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def force_exit_after(seconds: float) -> None:
    """Exit the process if the graceful shutdown hangs: since Python 3.12, servers wait for every open connection."""

    def exit_now() -> None:
        logger.error("graceful shutdown timed out; exiting")
        os._exit(0)

    asyncio.get_running_loop().call_later(seconds, exit_now)


def exit_despite_threads(status: int) -> None:
    """Let the process exit with a status although threads that agents started are still running."""
    main = threading.main_thread()
    names = [each.name for each in threading.enumerate() if not each.daemon and each is not main]
    timer = threading.Timer(_THREADS_SECONDS, _exit, [names, status])
    timer.daemon = True
    timer.start()


def _exit(names: Sequence[str], status: int) -> None:
    logger.warning("exiting; threads are still running: %s", ", ".join(names))
    os._exit(status)
