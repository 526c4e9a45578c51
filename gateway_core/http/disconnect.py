"""Does something for a client only as long as the client is there.

Starlette and Hypercorn notice a client's leaving only while somebody waits for it; this waits from before the first
await of the work until its end, for answers that are streamed and for those that are not.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Receive


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, None], *, on_leave: Callable[[], None] = lambda: None
) -> bool:
    """Do the work; cancel it when the client leaves. The request's body must have been read.

    Args:
        receive: The request's.
        work: What to do.
        on_leave: Called when the client left, before the work is cancelled.

    Returns:
        Whether the client left.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        on_leave()
        return True
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
