"""Derives the settings of each server behind a microsoft/mcp-gateway from the settings of the mcp-gateway.

It makes no requests: `gateway_discovery.py` polls for the servers, and each is a `server.Server` like any other.
"""

from collections.abc import Iterable

from attrs import evolve

from gateway_plugins.mcp_tools.credentials import credential
from gateway_plugins.mcp_tools.settings import McpServer


class McpGateway:
    """One mcp-gateway.

    Args:
        name: Name of the mcp-gateway in the configuration.
        settings: Settings of the mcp-gateway.
        cached: Names of the servers in the tool cache.
    """

    def __init__(self, name: str, settings: McpServer, cached: Iterable[str]) -> None:
        assert settings.url is not None
        self.name = name
        self.settings = settings
        self.auth = credential(settings)
        self.base = settings.url.rstrip("/")
        before = [server.partition("/")[2] for server in cached if server.startswith(f"{name}/")]
        self.known = settings.adapters or before
        """The adapters that are expected before the first poll: the configured or else the cached ones."""

    def settings_of(self, adapter: str | None) -> McpServer | None:
        """Return the settings of one server behind the mcp-gateway; `None` if the settings select none of its tools.

        Args:
            adapter: Name of the adapter; `None` for the tool router.
        """
        path = "/mcp" if adapter is None else f"/adapters/{adapter}/mcp"
        if adapter is None and not self.settings.router:
            return None
        tools = _names_of(adapter, self.settings.tools)
        if self.settings.tools and not tools:
            return None
        idempotent = _names_of(adapter, self.settings.idempotent)
        return evolve(self.settings, url=f"{self.base}{path}", tools=tools, idempotent=idempotent)


def _names_of(adapter: str | None, names: Iterable[str]) -> list[str]:
    """Return the names that belong to one server, without the server's prefix."""
    if adapter is None:
        return [name for name in names if "/" not in name]
    return [name.removeprefix(f"{adapter}/") for name in names if name.startswith(f"{adapter}/")]
