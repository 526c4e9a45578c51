"""Runs whose client left and that go on without it, and their results for whoever comes back.

By default no run is kept: a client that leaves ends its run. It renders nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway_core.config.settings import RunsConfig
from gateway_core.runs.active_run import ActiveRun

MOST_KEPT = 1000
"""Results; beyond that the oldest one is forgotten."""


class DetachedRuns:
    """The runs that go on without a client, and those of them that ended lately.

    Args:
        config: Asked for the settings when they are needed.
    """

    def __init__(self, config: Callable[[], RunsConfig]) -> None:
        self._config = config
        self._runs: dict[tuple[str, str], ActiveRun] = {}
        self._following: set[asyncio.Task[None]] = set()

    def keep(self, run: ActiveRun) -> None:
        """Follow a run that was handed over, to its end or to the end of its grace."""
        while len(self._runs) >= MOST_KEPT:
            del self._runs[next(iter(self._runs))]
        self._runs[_key(run)] = run
        self.go_on(self._follow(run))

    def go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do work for a run that has no client, and let the gateway's end wait for it."""
        task = asyncio.create_task(work)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return task

    def find(self, principal_id: str, request_id: str) -> ActiveRun | None:
        """The run of a request that this principal made."""
        return self._runs.get((principal_id, request_id))

    async def _follow(self, run: ActiveRun) -> None:
        config = self._config()
        try:
            async with asyncio.timeout(config.grace if run.on_disconnect == "grace" else None):
                while not run.over:
                    await run.take()
        except TimeoutError:
            pass  # the client had its time to come back
        finally:
            await run.close()
            asyncio.get_running_loop().call_later(config.keep_results, self._forget, run)

    def _forget(self, run: ActiveRun) -> None:
        # A later request may have come with the same id, and its run is the one that is found now.
        if self._runs.get(_key(run)) is run:
            del self._runs[_key(run)]

    async def close(self) -> None:
        """Wait for the followers of runs that were stopped."""
        if self._following:
            await asyncio.wait(self._following)
        self._runs.clear()


def _key(run: ActiveRun) -> tuple[str, str]:
    return run.context.principal.id, run.context.request_id
