"""Drops or logs the standard error output of a server process.

It logs at level DEBUG only, because the output may contain prompts and secrets.
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
def server_stderr(name: str, *, logged: bool) -> Iterator[TextIO]:
    """Yield a file for the output of a server.

    Args:
        name: Name of the server.
        logged: Whether its lines are logged; otherwise they are discarded.
    """
    if not logged:
        with open(os.devnull, "w") as file:
            yield file
        return
    reading, writing = os.pipe()

    def read() -> None:
        with os.fdopen(reading, "rb") as lines:
            while line := lines.readline(_LINE_BYTES):
                logger.debug("MCP server %s: %s", name, sanitize(line.decode(errors="replace")))

    # The thread ends when the last writer, the server process, closes the pipe.
    threading.Thread(target=read, name="mcp-stderr", daemon=True).start()
    with os.fdopen(writing, "w") as file:
        yield file
