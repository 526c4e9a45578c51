"""Caches the servers' tools across restarts, so that agents find their tools before the servers are connected.

Without a state directory, nothing is stored.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_plugins.mcp_tools.tool_catalog import ToolCatalog

logger = logging.getLogger(__name__)

FILE = "mcp_tools.json"


class ToolCache:
    """The tool catalogs of all servers, in one file.

    Args:
        folder: Returns the state directory, or `None` if nothing is stored. It creates the directory unless
            `create=False` is passed.
    """

    def __init__(self, folder: Callable[..., Path | None]) -> None:
        self._folder = folder
        self._catalogs: dict[str, Any] = self._read()

    def load(self, server: str) -> ToolCatalog:
        """Return the cached tools of a server; an empty catalog if it has no cache entry."""
        try:
            return ToolCatalog.from_json(self._catalogs.get(server, {}))
        except Exception:
            logger.warning("ignoring the invalid tool cache entry of MCP server %s", server)
            return ToolCatalog({})

    def store(self, server: str, catalog: ToolCatalog) -> None:
        """Store the tools of a server."""
        stored = catalog.as_json()
        if self._catalogs.get(server) == stored:
            return
        self._catalogs[server] = stored
        folder = self._folder()
        if folder is None:
            return
        new = folder / f"{FILE}.new"
        try:
            new.write_text(json.dumps(self._catalogs), encoding="utf-8")
            os.replace(new, folder / FILE)
        except OSError as error:
            logger.warning("could not write the MCP tool cache %s: %s", folder / FILE, error.strerror)

    def servers(self) -> list[str]:
        """Return the names of all servers in the cache."""
        return list(self._catalogs)

    def _read(self) -> dict[str, Any]:
        folder = self._folder(create=False)
        if folder is None:
            return {}
        try:
            stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            logger.warning("ignoring the unreadable MCP tool cache %s", folder / FILE)
            return {}
        return stored if isinstance(stored, dict) else {}
