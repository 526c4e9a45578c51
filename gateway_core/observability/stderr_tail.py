"""Keeps the last lines that a child process writes to its standard error, for the diagnosis of its failure.

The lines may contain prompts and secrets: they are for operators only, and are not logged while the process works.
"""

import os
import re
import threading
from collections import deque
from collections.abc import Callable

_LINE_BYTES = 8192
_MAX_LINES = 5
_MAX_CHARACTERS = 1000
_CLOSE_SECONDS = 2.0
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")


class StderrTail:
    """A file for the standard error of a child process.

    Args:
        on_line: Called in a thread with each line, without control characters.
    """

    def __init__(self, on_line: Callable[[str], object] = lambda _: None) -> None:
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        reading, writing = os.pipe()
        self.file = os.fdopen(writing, "w")
        # The thread ends when the last writer, the process, has closed the pipe.
        self._thread = threading.Thread(target=self._read, args=(reading,), name="stderr-tail", daemon=True)
        self._thread.start()

    def __str__(self) -> str:
        """The last lines in one line, and a clause for use behind a description of the failure; empty without lines."""
        text = " | ".join(list(self._lines))[-_MAX_CHARACTERS:]
        return f"; its standard error ends with: {text}" if text else ""

    def close(self) -> None:
        """Close the file, and wait shortly for the lines that are on their way. Blocking."""
        self.file.close()
        self._thread.join(_CLOSE_SECONDS)

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            while line := lines.readline(_LINE_BYTES):
                text = _CONTROL.sub(" ", line.decode(errors="replace")).strip()
                if text:
                    self._lines.append(text)
                    self._on_line(text)
