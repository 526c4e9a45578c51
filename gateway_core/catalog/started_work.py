"""Finds the threads and child processes that an import started, because they outlive a module that is not served.

Child processes are found on Linux only. Threads of the gateway itself are recognized by their names.
"""

import os
import threading
from pathlib import Path

_OWN_THREADS = ("gateway", "agent-load", "tool", "AnyIO worker thread", "asyncio_")
_OWN_MODULES = ("watchdog.", "gateway_", "opentelemetry.")
# The helper process of `multiprocessing` ends on its own.
_HELPERS = ("resource_tracker", "forkserver")


class StartedWork:
    """The threads and child processes that the current thread starts from now on."""

    def __init__(self) -> None:
        self._thread_id = threading.get_native_id()
        self._before = {*threading.enumerate()}
        self._children_before = self._children()
        self._threads: list[threading.Thread] = []
        self._processes: set[int] = set()

    def finish(self) -> None:
        """Record what was started. Call this in the same thread."""
        self._threads = [each for each in threading.enumerate() if each not in self._before and not _is_own(each)]
        self._processes = self._children() - self._children_before
        self._before.clear()

    def running(self) -> list[str]:
        """Describe what is still running, for operators."""
        threads = [f"the thread '{each.name}'" for each in self._threads if each.is_alive()]
        processes = [f"the process {pid} ({name})" for pid in sorted(self._processes) if (name := _command(pid))]
        return [f"loading it started {each}; restart the gateway to stop it" for each in [*threads, *processes]]

    def _children(self) -> set[int]:
        try:
            return {*map(int, Path(f"/proc/self/task/{self._thread_id}/children").read_text().split())}
        except OSError:
            return set()


def _is_own(thread: threading.Thread) -> bool:
    return thread.name.startswith(_OWN_THREADS) or type(thread).__module__.startswith(_OWN_MODULES)


def _command(pid: int) -> str:
    """Return the program of a child process; empty if it has ended, or is a helper."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
    ended = status[0] == "Z" or int(status[1]) != os.getpid()
    if ended or any(helper in command for helper in _HELPERS):
        return ""
    return Path(command.partition("\0")[0]).name
