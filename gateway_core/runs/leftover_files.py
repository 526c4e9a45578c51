"""Finds file descriptors that tools leave open, by comparing the open ones before and after a call.

Only calls during which the gateway does nothing else that opens files are compared: no other run and no other call is
active, and no nested run starts. A tool that leaks is therefore found by some of its calls.
"""

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field, frozen

from gateway_core.runs.run_scope import ActiveToolCall, RunScope

logger = logging.getLogger(__name__)

WARN_AT = 10
"""Number of open descriptors of one tool at which a warning is logged; tools keep a few in caches and pools."""

# Listing more of them would delay other requests.
_MAX_FILES = 500
_MAX_TOOLS = 500
_FOLDER = "/dev/fd"

_Identity = tuple[int, int]


@frozen
class _Before:
    call: ActiveToolCall
    files: frozenset[str]
    runs: int


@define(eq=False)
class _Tool:
    files: dict[int, _Identity] = field(factory=dict)
    warned: int = 0

    def prune(self) -> int:
        """Forget descriptors that were closed, and return the number of the others."""
        self.files = {fd: identity for fd, identity in self.files.items() if _identity(fd) == identity}
        return len(self.files)


class LeftoverFiles:
    """Watches the descriptors of tool calls.

    Args:
        active_runs: Returns the number of active runs.
    """

    def __init__(self, active_runs: Callable[[], int]) -> None:
        self._active_runs = active_runs
        self._before: _Before | None = None
        self._tools: dict[tuple[str, str], _Tool] = {}

    def open(self) -> dict[tuple[str, str], int]:
        """Return the number of descriptors that are still open, by agent id and tool."""
        return {key: count for key, tool in self._tools.items() if (count := tool.prune())}

    def began(self, scope: RunScope, call: ActiveToolCall) -> None:
        """Record that a tool call starts."""
        self._before = None
        if call.tool.source != "sdk-native" or self._active_runs() != 1 or len(scope.calls) != 1:
            return
        with suppress(OSError):
            files = os.listdir(_FOLDER)
            if len(files) <= _MAX_FILES:
                # Without the descriptor that listed the folder, which the next file gets.
                still_open = frozenset(name for name in files if _identity(int(name)))
                self._before = _Before(call, still_open, scope.runs)

    def ended(self, scope: RunScope, call: ActiveToolCall) -> None:
        """Record that a tool call ended; compare the descriptors if it was alone."""
        before, self._before = self._before, None
        if before is None or before.call is not call or before.runs != scope.runs or self._active_runs() != 1:
            return
        key = (scope.run.agent_id, call.tool.name)
        if key not in self._tools and len(self._tools) >= _MAX_TOOLS:
            return
        with suppress(OSError):
            new = [int(name) for name in os.listdir(_FOLDER) if name not in before.files]
            found = {fd: identity for fd in new if (identity := _identity(fd)) is not None and not _is_accepted(fd)}
            if found:
                self._record(key, found)

    def _record(self, key: tuple[str, str], found: dict[int, _Identity]) -> None:
        tool = self._tools.setdefault(key, _Tool())
        tool.files |= found
        count = tool.prune()
        if count >= max(WARN_AT, 2 * tool.warned):
            tool.warned = count
            logger.warning("the tool %s of %s leaves files or sockets open: %d so far", key[1], key[0], count)


def _identity(fd: int) -> _Identity | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_accepted(fd: int) -> bool:
    """Whether a descriptor is a connection that a server has accepted, such as one of the gateway's clients."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as connection:
            # Connections inherit the option from their listening socket.
            reuses = connection.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            return bool(reuses) and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False
