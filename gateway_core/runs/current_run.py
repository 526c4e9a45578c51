"""What a tool may ask of the run that it works for: whose it is, and to tell how far it has come.

It starts and changes no run. Importing this module does not import the SDK.
"""

import asyncio
from collections.abc import Callable

from gateway_core.types import RunContext, ToolProgress

MANY_BYTES = 4096


def current_run() -> RunContext | None:
    """The run that the code that runs now works for; `None` outside of any."""
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    return position.scope.run if position is not None else None


async def pace(size: int) -> None:
    """Wait while the client of the current run is behind. For whoever reads something long on behalf of a run.

    Args:
        size: Bytes that were just read. After many the event loop's other tasks get their turn, too: reading from
            somebody fast does not wait by itself.
    """
    from gateway_core.runs.run_scope import POSITION

    if size >= MANY_BYTES:
        await asyncio.sleep(0)
    position = POSITION.get()
    if position is not None and position.scope.live:
        await position.scope.channel.room()


def record_finish_reason(reason: str | None) -> None:
    """Say how a model's answer for the current run ended: `stop`, `length`, `content_filter` and the like.

    The SDK does not pass this on. What the last model of a run said is what its client is told.
    """
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    if position is not None and reason is not None:
        position.scope.finish_reason = reason


def progress_reporter(call_id: str) -> Callable[[str], None]:
    """How to tell the client of the current run what a tool call does at the moment.

    What it returns may be called from other tasks of the same event loop, also when the run is over: then nobody
    hears it.

    Args:
        call_id: The call, as the SDK's `ToolContext` names it.
    """
    from gateway_core.runs.run_scope import POSITION

    position = POSITION.get()
    if position is None or not position.scope.live:
        return lambda _: None
    put = position.scope.channel.put
    return lambda message: put(ToolProgress(call_id, message))
