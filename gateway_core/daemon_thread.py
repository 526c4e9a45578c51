"""Runs blocking code in a thread of its own, which may hang without keeping the process from its end.

For code that nobody vouches for, such as a module's import; a thread pool would be used up by what hangs.
"""

import asyncio
import contextvars
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ThreadExitError(Exception):
    """Carries an exception that is not an `Exception`, such as `SystemExit`, out of a thread; it is the `__cause__`."""


class DaemonThread(Generic[T]):
    """One call in a thread of its own. Must be made in a running event loop.

    Args:
        call: What to do; it sees the context variables of the moment.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=self._work, args=(context, call), name="agent-load", daemon=True)
        self._thread.start()

    async def result(self) -> T:
        """What the call returned.

        Raises:
            Exception: Whatever the call raised; `ThreadExitError` for what is no `Exception`.
        """
        return await self._future

    def stack(self) -> traceback.StackSummary:
        """Where the thread stands now."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()

    def _work(self, context: contextvars.Context, call: Callable[[], T]) -> None:
        # Code that runs an agent synchronously makes a loop for its thread and leaves it open; so it gets one to use.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            result = context.run(call)
        except BaseException as error:
            self._hand_over(self._future.set_exception, error if isinstance(error, Exception) else _carried(error))
        else:
            self._hand_over(self._future.set_result, result)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _hand_over(self, settle: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: None if self._future.done() else settle(value))
        except RuntimeError:  # the loop has stopped meanwhile
            logger.debug("a thread ended after its event loop")


def _carried(error: BaseException) -> ThreadExitError:
    carrier = ThreadExitError(f"{type(error).__name__}: {error}")
    carrier.__cause__ = error
    return carrier
