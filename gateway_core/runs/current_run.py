"""Functions that tools and plugins call during a run: read its context, report progress, apply backpressure.

They do not start or modify runs. Importing this module does not import the SDK.
"""

import asyncio
from collections.abc import Callable

from gateway_core.runs.run_events import ToolProgress
from gateway_core.types import RunContext

YIELD_BYTES = 4096
"""Reads of at least this size yield to the event loop."""


def current_run() -> RunContext | None:
    """Return the context of the current run; `None` outside a run."""
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    return position.scope.run if position is not None else None


async def apply_backpressure(size: int) -> None:
    """Apply backpressure: wait while the client of the current run reads too slowly.

    Call this after each chunk when reading a long response on behalf of a run.

    Args:
        size: Number of bytes just read. A large read also yields to the event loop, because reads from a fast peer may
            never suspend the task.
    """
    from gateway_core.runs.run_scope import POSITION

    if size >= YIELD_BYTES:
        await asyncio.sleep(0)
    position = POSITION.get()
    if position is not None and position.scope.live:
        await position.scope.channel.room()


def record_finish_reason(reason: str | None) -> None:
    """Record the finish reason of a model's answer in the current run, such as `stop`, `length` or `content_filter`.

    The SDK does not pass it on. The client receives the finish reason of the run's last model call.
    """
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    if position is not None and reason is not None:
        position.scope.finish_reason = reason


def progress_reporter(call_id: str) -> Callable[[str], None]:
    """Return a function that sends progress messages of a tool call to the client of the current run.

    Other tasks of the same event loop may call the function. After the run has ended, calls have no effect.

    Args:
        call_id: The id of the call (`tool_call_id` of the SDK's `ToolContext`).
    """
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    if position is None or not position.scope.live:
        return lambda _: None
    put = position.scope.channel.put
    return lambda message: put(ToolProgress(call_id, message))
