"""Runs blocking code in a daemon thread, which does not keep the process from exiting if the code hangs.

It is for untrusted code, such as the import of an agent's module. Hanging calls would exhaust a thread pool.
"""

import asyncio
import contextlib
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
    """Wraps an exception that a future cannot carry, such as `SystemExit`; its `__cause__` is the original."""


class DaemonThread(Generic[T]):
    """A call that runs in its own daemon thread. The constructor starts it and requires a running event loop.

    Args:
        call: The function to call. It runs in a copy of the current context variables.
        name: The name of the thread.
    """

    def __init__(self, call: Callable[[], T], *, name: str = "agent-load") -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=self._work, args=(context, call), name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> "asyncio.Future[T]":
        """A future that is done when the call has ended."""
        return self._future

    async def result(self) -> T:
        """Wait for the call and return its result.

        Raises:
            ThreadExitError: The call raised `StopIteration`, or an exception that is not an `Exception`.
            Exception: Any other exception of the call.
        """
        # Shielded, because the call continues when its caller stops waiting.
        return await asyncio.shield(self._future)

    def stack(self) -> traceback.StackSummary:
        """Return the current stack of the thread."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return traceback.extract_stack(frame) if frame is not None else traceback.StackSummary()

    def _work(self, context: contextvars.Context, call: Callable[[], T]) -> None:
        try:
            # Code that runs an agent synchronously would create an event loop for this thread and leave it open.
            with contextlib.closing(asyncio.new_event_loop()) as loop:
                asyncio.set_event_loop(loop)
                try:
                    result = context.run(call)
                finally:
                    asyncio.set_event_loop(None)
        except BaseException as error:
            fits = isinstance(error, Exception) and not isinstance(error, StopIteration)
            self._hand_over(self._future.set_exception, error if fits else _carried(error))
        else:
            self._hand_over(self._future.set_result, result)

    def _hand_over(self, settle: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(lambda: None if self._future.done() else settle(value))
        except RuntimeError:  # the loop is closed
            logger.debug("a daemon thread finished after its event loop was closed")


def _carried(error: BaseException) -> ThreadExitError:
    carrier = ThreadExitError(f"{type(error).__name__}: {error}")
    carrier.__cause__ = error
    return carrier
