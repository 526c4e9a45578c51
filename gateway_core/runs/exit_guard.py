"""Prevents agents from ending the process by raising `SystemExit` or `KeyboardInterrupt`.

If a task raises one of them, the event loop stops, and with it every other request. The SDK runs tools, guardrails and
hooks in separate tasks, so the guard is installed as the loop's task factory. Only tasks started inside a run are
guarded. Real signals do not arrive as exceptions, because the server handles them.

The guard also counts the active tasks of each run, to report orphaned tasks.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway_core.runs.error_mapping import as_gateway_error
from gateway_core.runs.run_scope import POSITION, RunScope


def install_exit_guard(loop: asyncio.AbstractEventLoop) -> None:
    """Guard every task that is started inside a run on this loop. Idempotent."""
    before = loop.get_task_factory()
    if isinstance(before, _GuardingFactory):
        return
    factory: Any = _GuardingFactory(before)
    loop.set_task_factory(factory)


class _GuardingFactory:
    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> "asyncio.Future[Any]":
        position = POSITION.get()
        if position is not None and asyncio.iscoroutine(coroutine):
            coroutine = _guarded(coroutine, position.scope)
        if self._before is not None:
            started: asyncio.Future[Any] = self._before(loop, coroutine, **options)
            return started
        return asyncio.Task(coroutine, loop=loop, **options)


async def _guarded(coroutine: Coroutine[Any, Any, Any], scope: RunScope) -> Any:
    agent_gateway_run = scope.run  # noqa: F841 - read by `stack_attribution.attributed_run`
    scope.tasks += 1
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise as_gateway_error(error) from error
    finally:
        scope.tasks -= 1
