"""Takes log records where they are made, and writes them in a thread of its own.

A reader that stops reading, such as a full pipe, delays no request: lines wait in a bounded queue, and are dropped and
counted when it is full.
"""

import copy
import logging
import logging.handlers
import queue
import traceback
from typing import Any

from gateway_core import log_context

# What every record has; the rest is what the line's author gave as `extra`.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

STOP_SECONDS = 2.0
"""How long the writer may take for what is left when the gateway stops."""


class Pipeline(logging.handlers.QueueHandler):
    """Stands in for one console handler.

    Args:
        handler: The handler, which goes on writing.
        formatter: How lines look.
        capacity: How many records may wait.
    """

    def __init__(self, handler: "logging.StreamHandler[Any]", formatter: logging.Formatter, capacity: int) -> None:
        # A garbage collection in the middle of a `put` may run a finalizer that logs, such as that of a task whose
        # exception nobody took. `queue.Queue` would wait for its own lock then, for ever.
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        self._capacity = capacity
        super().__init__(self._records)
        self._handler = handler
        self._before = handler.formatter
        self._formatter = formatter
        self._listener = _Listener(self._records, handler)
        self.dropped = 0

    def start(self) -> None:
        """Take the handler's place."""
        self._handler.setFormatter(self._formatter)
        self._listener.start()
        root = logging.getLogger()
        root.addHandler(self)
        root.removeHandler(self._handler)

    def stop(self) -> None:
        """Write what is left, as far as somebody reads it, and give the handler its place back."""
        root = logging.getLogger()
        root.removeHandler(self)
        if self._listener.stop_within(STOP_SECONDS):
            self._handler.setFormatter(self._before)
        root.addHandler(self._handler)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Keep what only the place that logs knows: the context, and the exception without what it says."""
        kept = copy.copy(record)
        kept.msg, kept.args = record.getMessage(), None
        given = {name: value for name, value in vars(record).items() if name not in _USUAL}
        context: dict[str, Any] = {**log_context(), **given.pop("fields", {}), **given}
        if record.exc_info and record.exc_info[1] is not None:
            context["exception"] = _where(record.exc_info[1])
        vars(kept)["context"] = context
        kept.exc_info = kept.exc_text = kept.stack_info = None
        return kept

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a record into the queue, or count it as dropped."""
        if self._records.qsize() < self._capacity:
            self._records.put(record)
        else:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    def stop_within(self, seconds: float) -> bool:
        """Stop when the queue is empty, but do not wait longer than that. Returns whether it stopped."""
        thread = self._thread
        self.enqueue_sentinel()
        if thread is not None:
            thread.join(seconds)
            if thread.is_alive():
                return False
        self._thread = None
        return True


def _where(error: BaseException) -> dict[str, Any]:
    """An exception's type and places. What it says may be a prompt, an argument or a secret, and stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    where: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "stack": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }
    if error.__cause__ is not None and error.__cause__ is not error:
        where["cause"] = _where(error.__cause__)
    return where
