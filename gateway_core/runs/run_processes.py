"""The child processes that one run started: which are still running, with the tool that started them."""

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
from attrs import frozen

from gateway_core.types import ToolInfo

MARK = "AGENT_GATEWAY_RUN"

# Start times of processes depend on the system's clock, which may be adjusted.
_CLOCK_SECONDS = 60.0


@frozen(eq=False)
class LeftProcess:
    """A process that is running."""

    process: psutil.Process
    name: str
    tool: ToolInfo | None
    """The tool that started it; `None` if other code of the run did."""
    marked: bool
    """Whether it executes another program. If not, it may be a forked copy of the gateway."""

    def is_running(self) -> bool:
        """Whether it has not ended. A process that has ended stays in the system until its parent waits for it."""
        try:
            return bool(self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def end(self, *, force: bool = False) -> None:
        """Ask the process to end; with `force`, end it."""
        with suppress(psutil.Error):
            if force or not self.marked:
                # A forked copy would run the gateway's own signal handlers, which stop the gateway.
                self.process.kill()
            else:
                self.process.terminate()


class RunProcesses:
    """Records the processes that a run starts. Threads may call its methods."""

    def __init__(self) -> None:
        self.mark = (MARK, secrets.token_hex(8))
        """The environment variable of the processes: its name and value."""
        self.any = False
        """Whether the run has started a process, which may have ended."""
        self.on_late_start: Callable[[], None] | None = None
        """Called when a process starts after the run has ended; may be called in any thread."""
        self._since = time.time()
        self._started: dict[int, tuple[float, ToolInfo | None]] = {}
        self._tool: ToolInfo | None = None

    @property
    def ids(self) -> list[int]:
        """The ids of the processes that the run has started itself."""
        return list(self._started)

    def expect(self, tool: ToolInfo | None) -> None:
        """Record that a process is about to start, whose id may remain unknown."""
        self.any = True
        self._tool = tool

    def add(self, pid: int, tool: ToolInfo | None) -> None:
        """Record a process.

        Args:
            pid: Its id.
            tool: The tool that started it, if any.
        """
        self.any = True
        with suppress(psutil.Error):
            self._started[pid] = (psutil.Process(pid).create_time(), tool)
        if self.on_late_start is not None:
            self.on_late_start()

    def running(self) -> list[LeftProcess]:
        """Find the processes of the run, and their descendants, that are running. Blocks for some milliseconds.

        A descendant is found by its environment, its session, or the chain of its parents.
        """
        found: dict[int, LeftProcess] = {}
        others: list[tuple[psutil.Process, int, int, bool]] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                created = process.create_time()
                if created < self._since - _CLOCK_SECONDS or process.pid == os.getpid():
                    continue
                marked = _has(process, self.mark)
                own = self._started.get(process.pid)
                if own is not None and own[0] == created:
                    found[process.pid] = LeftProcess(process, process.name(), own[1], marked)
                else:
                    others.append((process, process.ppid(), os.getsid(process.pid), marked))
        size = -1
        while size != len(found):
            size = len(found)
            for process, parent, session, marked in others:
                if process.pid not in found and (marked or parent in found or session in self._started):
                    _, tool = self._started.get(session, (0, self._tool))
                    with suppress(psutil.Error):
                        tool = found[parent].tool if parent in found else tool
                        found[process.pid] = LeftProcess(process, process.name(), tool, marked)
        return [each for each in found.values() if each.is_running()]

    def reap(self) -> None:
        """Remove the processes that have ended and for which no code has waited."""
        for pid in self.ids:
            with suppress(OSError):
                os.waitpid(pid, os.WNOHANG)


def _has(process: psutil.Process, variable: tuple[str, str]) -> bool:
    try:
        return bool(process.environ().get(variable[0]) == variable[1])
    except (psutil.Error, OSError):
        return False
