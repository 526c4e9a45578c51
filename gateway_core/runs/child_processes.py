"""Lists the child processes of the gateway, to find those that are still running after a run."""

import os
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


def attached_children() -> dict[int, str]:
    """Return the names of the running child processes by process id; empty on systems other than Linux.

    Processes with a separate session are omitted: they were started to outlive the call, such as MCP servers.
    """
    found: dict[int, str] = {}
    pids: list[int] = []
    with suppress(OSError):  # another system
        for task in os.listdir(_TASKS):
            with suppress(OSError):  # the thread ended meanwhile
                pids += map(int, (_TASKS / task / "children").read_text().split())
    for pid in pids:
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it ended meanwhile
            continue
        state, _, _, session = rest.split()[:4]
        if state != "Z" and int(session) != pid:
            found[pid] = name
    return found


def open_files() -> int | None:
    """Return the number of open file descriptors; `None` if it is unknown."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return None
