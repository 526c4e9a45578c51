"""Keeps what is known of the servers' tools over a restart, so that agents find their tools before the servers are up.

It knows nothing of what is in it but that it is JSON. Without a folder it keeps nothing.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_plugins.mcp_tools.listing import Book

logger = logging.getLogger(__name__)

FILE = "mcp_tools.json"


class ToolCache:
    """The books of all servers, in one file.

    Args:
        folder: Where it is; asked with `create=True` when something is to be kept.
    """

    def __init__(self, folder: Callable[..., Path | None]) -> None:
        self._folder = folder
        self._books: dict[str, Any] = self._read()

    def book(self, server: str) -> Book:
        """What is known of a server's tools."""
        try:
            return Book.from_json(self._books.get(server, {}))
        except (TypeError, KeyError, AttributeError):
            logger.warning("what was known of the MCP server %s cannot be read, and is forgotten", server)
            return Book({})

    def keep(self, server: str, book: Book) -> None:
        """Know it from now on."""
        kept = book.as_json()
        if self._books.get(server) == kept:
            return
        self._books[server] = kept
        folder = self._folder()
        if folder is None:
            return
        new = folder / f"{FILE}.new"
        try:
            new.write_text(json.dumps(self._books), encoding="utf-8")
            os.replace(new, folder / FILE)
        except OSError as error:
            logger.warning("what is known of MCP servers cannot be kept: %s", error.strerror)

    def servers(self) -> list[str]:
        """All that something is known of."""
        return list(self._books)

    def _read(self) -> dict[str, Any]:
        folder = self._folder(create=False)
        try:
            found = json.loads((folder / FILE).read_text(encoding="utf-8")) if folder else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            logger.warning("what was known of MCP servers cannot be read, and is forgotten")
            return {}
        return found if isinstance(found, dict) else {}
