"""microsoft/mcp-gateway: what the settings of one mean for each server behind it.

It makes no request; `adapters.py` asks which servers there are, and each is a `server/hypercorn.py` like any other.
"""

from collections.abc import Iterable

from attrs import evolve

from gateway_plugins.mcp_tools.credentials import credential
from gateway_plugins.mcp_tools.settings import McpServer


class McpGateway:
    """One mcp-gateway.

    Args:
        name: What operators call it.
        settings: Its table.
        remembered: The servers of which something is known from an earlier time.
    """

    def __init__(self, name: str, settings: McpServer, remembered: Iterable[str]) -> None:
        assert settings.url is not None
        self.name = name
        self.settings = settings
        self.auth = credential(settings)
        self.base = settings.url.rstrip("/")
        before = [server.partition("/")[2] for server in remembered if server.startswith(f"{name}/")]
        self.known = settings.adapters or before
        """The adapters that are there as far as one knows."""

    def settings_of(self, adapter: str | None) -> McpServer | None:
        """The settings of one server behind it; `None` where none of its tools is wanted.

        Args:
            adapter: Its name; `None` for the router.
        """
        path = "/mcp" if adapter is None else f"/adapters/{adapter}/mcp"
        if adapter is None and not self.settings.router:
            return None
        tools = _of(adapter, self.settings.tools)
        if self.settings.tools and not tools:
            return None
        idempotent = _of(adapter, self.settings.idempotent)
        return evolve(self.settings, url=f"{self.base}{path}", tools=tools, idempotent=idempotent)


def _of(adapter: str | None, names: Iterable[str]) -> list[str]:
    """Those names that are one server's, without its own."""
    if adapter is None:
        return [name for name in names if "/" not in name]
    return [name.removeprefix(f"{adapter}/") for name in names if name.startswith(f"{adapter}/")]
