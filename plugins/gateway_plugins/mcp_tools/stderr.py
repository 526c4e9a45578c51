"""What a server's process writes to its standard error, as log lines of the gateway's.

It shows nothing above the level DEBUG: such text may hold prompts and secrets.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gateway_plugins.mcp_tools.sanitize import sanitize

logger = logging.getLogger(__name__)

_LINE_BYTES = 8192


@contextmanager
def dropped_stderr() -> Iterator[TextIO]:
    """A file for a process to write to, which keeps nothing."""
    with open(os.devnull, "w") as file:
        yield file


@contextmanager
def logged_stderr(name: str) -> Iterator[TextIO]:
    """A file for a process to write to, whose lines are logged.

    Args:
        name: The server's.
    """
    reading, writing = os.pipe()

    def read() -> None:
        with os.fdopen(reading, "rb") as lines:
            while line := lines.readline(_LINE_BYTES):
                logger.debug("MCP server %s: %s", name, sanitize(line.decode(errors="replace")))

    # A thread of its own ends with the last writer, which is the server's process.
    threading.Thread(target=read, name="mcp-stderr", daemon=True).start()
    with os.fdopen(writing, "w") as file:
        yield file
