"""Keeps detached runs, which continue after their client has disconnected, and their results for a later request.

By default a run is not detached: it ends when its client disconnects. This module does not render events.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway_core.config.settings import RunsConfig
from gateway_core.runs.active_run import ActiveRun

MAX_RUNS = 1000
"""Maximum number of detached runs; beyond it, the oldest one is no longer retrievable."""


class DetachedRuns:
    """The detached runs, active or recently ended.

    Args:
        config: Returns the current settings.
    """

    def __init__(self, config: Callable[[], RunsConfig]) -> None:
        self._config = config
        self._runs: dict[tuple[str, str], ActiveRun] = {}
        self._following: set[asyncio.Task[None]] = set()

    def keep(self, run: ActiveRun) -> None:
        """Take over a run, and read its events until it ends or its grace period expires."""
        while len(self._runs) >= MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        self._runs[_key(run)] = run
        self.go_on(self._follow(run))

    def go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task for a run without a client; `close` waits for the task."""
        task = asyncio.create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task

    def find(self, principal_id: str, request_id: str) -> ActiveRun | None:
        """Return the run of a request, if this principal made the request."""
        return self._runs.get((principal_id, request_id))

    async def _follow(self, run: ActiveRun) -> None:
        config = self._config()
        try:
            async with asyncio.timeout(config.grace if run.on_disconnect == "grace" else None):
                while not run.over:
                    await run.take()
        except TimeoutError:
            pass  # the grace period has expired
        finally:
            await run.close()
            asyncio.get_running_loop().call_later(config.keep_results, self._forget, run)

    def _forget(self, run: ActiveRun) -> None:
        # A later request may have reused the id; its run then stays.
        if self._runs.get(_key(run)) is run:
            del self._runs[_key(run)]

    async def close(self) -> None:
        """Wait for the tasks of detached runs. The runs must have been stopped."""
        if self._following:
            await asyncio.wait(self._following)
        self._runs.clear()


def _key(run: ActiveRun) -> tuple[str, str]:
    return run.context.principal.id, run.context.request_id
