"""Queues log records and writes them in a background thread.

Blocked output, such as a full pipe, does not delay requests: records wait in a bounded queue, and are dropped and
counted when it is full.
"""

import copy
import logging
import logging.handlers
import queue
import traceback
from typing import Any

from gateway_core import log_context
from gateway_plugins.request_log.formats import Line, set_line

# The standard record attributes; all others come from `extra`.
_STANDARD_ATTRIBUTES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

STOP_SECONDS = 2.0
"""Maximum time to write the remaining records on shutdown."""


class Pipeline(logging.handlers.QueueHandler):
    """Replaces one console handler by a queue in front of it.

    Args:
        handler: The handler that writes the records.
        formatter: The formatter for the handler.
        capacity: Maximum number of queued records.
    """

    def __init__(self, handler: "logging.StreamHandler[Any]", formatter: logging.Formatter, capacity: int) -> None:
        # A garbage collection during `put` can run a finalizer that logs, such as that of a task whose exception was
        # never retrieved. `queue.Queue` would then deadlock on its own lock; `SimpleQueue` is reentrant.
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._capacity = capacity
        super().__init__(self._records)
        self._handler = handler
        self._before = handler.formatter
        self._formatter = formatter
        self._listener = _Listener(self._records, handler)
        self.dropped = 0

    def start(self) -> None:
        """Installs the queue in place of the handler."""
        self._handler.setFormatter(self._formatter)
        self._listener.start()
        root = logging.getLogger()
        root.addHandler(self)
        root.removeHandler(self._handler)

    def stop(self) -> None:
        """Writes the remaining records, within `STOP_SECONDS`, and restores the handler."""
        root = logging.getLogger()
        root.removeHandler(self)
        if self._listener.stop_within(STOP_SECONDS):
            self._handler.setFormatter(self._before)
        root.addHandler(self._handler)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Captures the context in the logging thread, and the exception without its message."""
        kept = copy.copy(record)
        kept.msg, kept.args = record.getMessage(), None
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES}
        fields = given.pop("fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            given["exception"] = _where(record.exc_info[1])
        set_line(kept, Line(log_context(), fields, given))
        kept.exc_info = kept.exc_text = kept.stack_info = None
        return kept

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queues a record, or counts it as dropped if the queue is full."""
        if self._records.qsize() < self._capacity:
            self._records.put(record)
        else:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    def stop_within(self, seconds: float) -> bool:
        """Stops after writing the queued records, with a timeout. Returns whether the thread has stopped."""
        thread = self._thread
        self.enqueue_sentinel()
        if thread is not None:
            thread.join(seconds)
            if thread.is_alive():
                return False
        self._thread = None
        return True


def _where(error: BaseException) -> dict[str, Any]:
    """Returns an exception's type and stack, without its message, which may contain prompts or secrets."""
    frames = traceback.extract_tb(error.__traceback__)
    where: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if error.__cause__ is not None and error.__cause__ is not error:
        where["cause"] = _where(error.__cause__)
    return where
