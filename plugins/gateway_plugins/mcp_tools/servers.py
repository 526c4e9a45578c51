"""All the servers of one gateway: started together, told of together, and listened to for changes of their tools.

It reloads the gateway when what is on offer changes; what a reload does is the gateway's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gateway_core import Gateway, ToolError
from gateway_plugins.mcp_tools.gateway_discovery import Found, GatewayDiscovery
from gateway_plugins.mcp_tools.mcp_gateway import McpGateway
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.server import Server
from gateway_plugins.mcp_tools.settings import Settings
from gateway_plugins.mcp_tools.tool_cache import ToolCache

if TYPE_CHECKING:
    from agents import FunctionTool

logger = logging.getLogger(__name__)


class Servers:
    """The servers of one gateway.

    Args:
        gateway: Reloaded when tools change, and told of tools that an operator should look at.
        settings: Which servers there are.
    """

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._memory = ToolCache(gateway.state_folder)
        self._offered: list[FunctionTool] = []
        self._reported: set[tuple[str, str, str]] = set()
        self._dirty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._gateways: dict[str, GatewayDiscovery] = {}
        self.all: dict[str, Server] = {}

    async def start(self) -> None:
        """Begin to connect to all, and wait a moment for those of whose tools nothing is known."""
        for name, settings in self._settings.servers.items():
            if settings.kind == "mcp-gateway":
                self._begin_with(McpGateway(name, settings, self._memory.servers()))
            else:
                self._add(Server(name, settings, self._memory.book(name), self._listed))
        self._tasks.append(asyncio.create_task(self._reload()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start_timeout):
                await self._all_known()

    async def close(self) -> None:
        """Let all sessions go."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(server.close() for server in self.all.values()))

    def offer(self) -> "list[FunctionTool]":
        """The tools of all servers, as far as they are known."""
        self._offered = self._known()
        return self._offered

    def facts(self) -> Mapping[str, Any]:
        """By server; an mcp-gateway stands beside the servers behind it."""
        gateways = {
            f"{name}/*": {
                "kind": "mcp-gateway",
                "last_error": adapters.last_error,
                "adapters": adapters.found.adapters,
                "tools": [sanitize(tool) for tool in adapters.found.tools],
            }
            for name, adapters in self._gateways.items()
        }
        return {**{name: server.facts() for name, server in self.all.items()}, **gateways}

    def changes(self) -> list[dict[str, Any]]:
        """The tools that an operator should look at: as they were, and as they are."""
        return [{"server": name, **change} for name, server in self.all.items() for change in server.changes()]

    async def _all_known(self) -> None:
        """Wait until something is known of the tools of each server."""
        for name, adapters in self._gateways.items():
            if not any(server.is_known for server in self.all.values() if server.table == name):
                await adapters.looked.wait()
        for server in [*self.all.values()]:
            if not server.is_known:
                await server.listed.wait()

    def _begin_with(self, behind: "McpGateway") -> None:
        """With what is known from an earlier time; what there is now, the mcp-gateway says."""

        async def found(now: Found) -> None:
            gone = [server for server in self.all.values() if server.table == behind.name and server.adapter]
            for server in [server for server in gone if server.adapter not in now.adapters]:
                del self.all[server.name]
                await server.close()
                self._dirty.set()
            for adapter in now.adapters:
                self._add_adapter(behind, adapter)

        self._add_adapter(behind, None)
        for adapter in behind.known:
            self._add_adapter(behind, adapter)
        adapters = self._gateways[behind.name] = GatewayDiscovery(behind.name, behind.settings, behind.auth, found)
        self._tasks.append(asyncio.create_task(adapters.keep_looking()))

    def _add_adapter(self, behind: "McpGateway", adapter: str | None) -> None:
        settings = behind.settings_of(adapter)
        name = behind.name if adapter is None else f"{behind.name}/{adapter}"
        if settings is not None and name not in self.all:
            book = self._memory.book(name)
            self._add(Server(name, settings, book, self._listed, url=settings.url, auth=behind.auth))

    def _add(self, server: Server) -> None:
        self.all[server.name] = server
        server.start()

    def _known(self) -> "list[FunctionTool]":
        return [tool for server in self.all.values() for tool in server.offer()]

    def _listed(self, server: Server) -> None:
        self._memory.keep(server.name, server.book)
        for name in server.book.flagged:
            self._flag(server, name)
        if not _same(self._known(), self._offered):
            self._dirty.set()

    def _flag(self, server: Server, name: str) -> None:
        entry = server.book.entries[name]
        assert entry.listed is not None
        seen = (server.name, name, entry.listed.digest)
        if seen in self._reported:
            return
        self._reported.add(seen)
        what = "is new" if entry.approved is None else "is not what was approved"
        self._gateway.report(
            ToolError(
                f"the tool {sanitize(name)} of the MCP server {server.name} {what}",
                source=f"[plugins.mcp_tools.{server.table}]",
                hint=f"compare it at /admin/mcp, and approve it: POST /admin/mcp/approve?server={server.name}",
                code="mcp_tool_changed",
            )
        )

    async def _reload(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            logger.info("the tools of MCP servers have changed; reloading")
            try:
                await self._gateway.reload()
            except Exception:
                logger.exception("the gateway could not be reloaded")


def _same(some: "Iterable[FunctionTool]", others: "Iterable[FunctionTool]") -> bool:
    return {id(tool) for tool in some} == {id(tool) for tool in others}
