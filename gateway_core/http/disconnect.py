"""Runs a coroutine while its client is connected, and cancels it on disconnect.

Starlette and Hypercorn report a disconnect only to a pending `receive()`; this keeps one pending from before the first
await of the coroutine until it finishes, for streamed and non-streamed responses.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Receive


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, None], *, on_disconnect: Callable[[], None] = lambda: None
) -> bool:
    """Runs the coroutine and cancels it when the client disconnects. The request body must have been read.

    Args:
        receive: The ASGI `receive` of the request.
        work: The coroutine to run.
        on_disconnect: Called on disconnect, before the coroutine is cancelled.

    Returns:
        Whether the client disconnected.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        on_disconnect()
        return True
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
