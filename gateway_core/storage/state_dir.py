"""Creates the state directory, which contains the data that the gateway keeps across restarts.

Other modules and plugins manage its contents.
"""

import logging
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from gateway_core.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_HINT = 'choose another directory, or set it to "" to disable persistence'

LOCK = "gateway.lock"
"""Name of the file that a server locks; it contains the id of its process and the URL of its admin pages."""

# The layout of the system's `struct flock`, and the positions of the type and the process id in it.
_FLOCK = {"linux": ("hhqqi", 0, 4), "darwin": ("qqihh", 3, 2)}


@frozen
class RunningServer:
    """A server that uses a state directory."""

    process: int | None
    """The id of its process; `None` if that is not visible here, such as that of another container."""
    url: str | None
    """The base URL of its admin pages."""


def make_folder(path: Path) -> Path:
    """Create the directory if it does not exist, accessible to the gateway's user only, and return it.

    Raises:
        ConfigError: The directory cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot create the state directory {path}: {error.strerror}",
            source="[state] folder",
            hint=_HINT,
        ) from error
    return path


def check_folder(path: Path | None) -> None:
    """Check that the directory can be created and written to, without creating it.

    Raises:
        ConfigError: It cannot.
    """
    if path is None:
        return
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each) or each == each.parent)
    if not nearest.is_dir():
        reason = f"{nearest} is not a directory"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"no permission to write to {nearest}"
    else:
        return
    raise ConfigError(f"cannot use the state directory {path}: {reason}", source="[state] folder", hint=_HINT)


@contextmanager
def claim(folder: Path | None, url: str = "") -> Iterator[None]:
    """Mark the directory as used by this server, and log a warning if another server uses it.

    Args:
        folder: The directory; `None` if persistence is disabled.
        url: The base URL of the server's admin pages, for `running_server`.

    The system releases the lock when the process ends, however it ends. Other commands do not use it.
    """
    descriptor, locked = -1, False
    exists = folder is not None and folder.exists()
    # Without write permission, servers cannot share state.
    with suppress(OSError, ConfigError):
        if folder is not None and fcntl is not None:
            descriptor = os.open(make_folder(folder) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            locked = _lock(descriptor, folder, url)
    try:
        yield
    finally:
        if locked and folder is not None:
            # Without stored data, remove what this server created.
            with suppress(OSError):
                (folder / LOCK).unlink()
                if not exists:
                    folder.rmdir()
        if descriptor >= 0:
            os.close(descriptor)


def running_server(folder: Path | None) -> RunningServer | None:
    """Return the server that uses a state directory; `None` without one, or if the system does not report locks."""
    if folder is None or fcntl is None or sys.platform not in _FLOCK:
        return None
    layout, kind, process = _FLOCK[sys.platform]
    request = [0] * 5
    request[kind] = fcntl.F_WRLCK
    try:
        with (folder / LOCK).open("rb") as file:
            held = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *request)))
            _, _, url = file.read(1000).decode(errors="replace").strip().partition("\n")
    except OSError:
        return None
    if held[kind] == fcntl.F_UNLCK:
        return None
    return RunningServer(held[process] if held[process] > 0 else None, url or None)


def _lock(descriptor: int, folder: Path, url: str) -> bool:
    """Lock the file, or log a warning; return whether it is locked."""
    try:
        # Unlike that of `flock`, this lock is not inherited by forked children, which may outlive the server.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").partition("\n")[0]
        logger.warning(
            "another gateway (process %s) uses the state directory %s: limits, runs and idempotency keys are separate; "
            "to separate the stored data, too, set [state] folder",
            holder if holder.isdigit() else "unknown",
            folder,
        )
        return False
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{url}\n".encode(), 0)
    return True
