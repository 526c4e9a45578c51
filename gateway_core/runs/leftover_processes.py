"""Ends the child processes that are still running after the run that started them, and counts them.

Processes that an agent starts when it is imported or set up, and MCP servers, do not belong to a run.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter

from gateway_core.daemon_thread import DaemonThread
from gateway_core.runs.process_starts import install
from gateway_core.runs.run_processes import LeftProcess, RunProcesses
from gateway_core.runs.run_scope import RunScope

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""Time that a process has after SIGTERM, before SIGKILL."""

_POLL_SECONDS = 0.1
_KILL_SECONDS = 1.0
_ATTEMPTS = 3
_SHOWN = 10
_MAX_LABELS = 1000


class LeftoverProcesses:
    """Watches the processes of runs. Creating it changes the functions of this process that start others."""

    def __init__(self) -> None:
        install()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Number of processes that were running after their run, by agent id and tool; "" if the tool is unknown."""

    def begin(self) -> RunProcesses:
        """Return the record for the processes of a new run."""
        return RunProcesses()

    def finish(self, scope: RunScope, *, keep: bool) -> None:
        """Look for processes of a run that has ended, now and when its remaining threads or tasks start others.

        Args:
            scope: The scope of the run.
            keep: Whether they are counted, but not ended.
        """
        processes, loop = scope.processes, asyncio.get_running_loop()
        if processes is None:
            return

        def look() -> None:
            task = loop.create_task(self._finish(scope, processes, keep))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        def look_again() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(look)

        processes.on_late_start = look_again
        if processes.any:
            look()

    async def close(self) -> None:
        """Wait for the ends of processes, and grant no more time to them."""
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _finish(self, scope: RunScope, processes: RunProcesses, keep: bool) -> None:
        left = await _running(processes)
        if left:
            self._report(scope, left, keep)
        if keep:
            return
        for each in left:
            each.end()
        await self._wait(left, GRACE_SECONDS)
        for _ in range(_ATTEMPTS):  # they may have started others in the meantime
            left = await _running(processes)
            for each in left:
                each.end(force=True)
            await _ended(left, _KILL_SECONDS)
        if left:
            logger.warning("could not end child processes of a run: %s", _names(left))
        # Code of the run may be about to wait for a process that has ended.
        await self._pause(1.0)
        processes.reap()

    async def _wait(self, left: list[LeftProcess], seconds: float) -> None:
        waiting = asyncio.create_task(_ended(left, seconds))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _report(self, scope: RunScope, left: list[LeftProcess], keep: bool) -> None:
        agent_id = scope.run.agent_id
        for each in left:
            key = (agent_id, each.tool.name if each.tool is not None else "")
            self.counts[key if len(self.counts) < _MAX_LABELS or key in self.counts else (agent_id, "")] += 1
        logger.warning(
            "child processes are still running after the run: %s [agent: %s, request: %s]; %s",
            _names(left),
            agent_id,
            scope.run.request_id,
            "they are kept" if keep else "ending them",
        )


async def _ended(left: list[LeftProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for each in left:  # their parents may not be this process, so their ends are not reported
        while each.is_running() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)


async def _running(processes: RunProcesses) -> list[LeftProcess]:
    return await DaemonThread(processes.running, name="gateway-processes").result()


def _names(left: list[LeftProcess]) -> str:
    names = [
        f"{each.name} ({each.process.pid}{f', started by the tool {each.tool.name}' if each.tool else ''})"
        for each in left[:_SHOWN]
    ]
    return ", ".join(names) + (f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")
