"""Manages all MCP servers of a gateway: starts and stops them, offers their tools, and reports their state.

It triggers a gateway reload when the offered tools change.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway_core import Gateway, PluginError, ToolError
from gateway_plugins.mcp_tools.mcp_gateway import DiscoveryResult, McpGateway
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.server import Server
from gateway_plugins.mcp_tools.settings import McpServer, Settings
from gateway_plugins.mcp_tools.tool_cache import ToolCache

if TYPE_CHECKING:
    import httpx2
    from agents import FunctionTool

logger = logging.getLogger(__name__)


class Servers:
    """The servers of one gateway.

    Args:
        gateway: Reloaded when tools change; flagged tools are reported to it.
        settings: Settings of all servers.
    """

    def __init__(self, gateway: Gateway, settings: Settings) -> None:
        self._gateway = gateway
        self._settings = settings
        self._tool_cache = ToolCache(gateway.state_folder)
        self._offered: list[FunctionTool] = []
        self._reported: set[tuple[str, str, str]] = set()
        self._tools_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._gateways: dict[str, McpGateway] = {}
        self.all: dict[str, Server] = {}

    async def start(self) -> None:
        """Start connecting to all servers, and wait up to `start_timeout` for those without known tools."""
        for name, settings in self._settings.servers.items():
            if settings.kind == "mcp-gateway":
                self._start_mcp_gateway(McpGateway(name, settings, self._tool_cache.servers()))
            else:
                self._add(name, settings)
        self._tasks.append(asyncio.create_task(self._reload()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start_timeout):
                await self._all_known()

    async def close(self) -> None:
        """Close all sessions."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(server.close() for server in self.all.values()))

    def offer(self) -> "list[FunctionTool]":
        """Return the known tools of all servers."""
        self._offered = self._known_tools()
        return self._offered

    def explain(self, tool: str) -> str | None:
        """Return the state of the server that would offer a tool, if it offers none or others."""
        for name, server in self.all.items():
            if tool.casefold().startswith(f"{name}/".casefold()):
                if server.is_up and server.listed_at is not None:
                    offered = ", ".join(sanitize(each) for each in server.catalog.entries) or "none"
                    return f"the MCP server {name} does not offer it; its tools: {offered}"
                return f"the MCP server {name} is down: {server.last_error or 'it has not answered yet'}"
        return None

    def facts(self) -> Mapping[str, Any]:
        """Return the state of each server; an mcp-gateway has an entry in addition to the servers behind it."""
        gateways = {
            f"{name}/*": {
                "kind": "mcp-gateway",
                "last_error": mcp_gateway.last_error,
                "adapters": mcp_gateway.result.adapters,
                "tools": [sanitize(tool) for tool in mcp_gateway.result.tools],
            }
            for name, mcp_gateway in self._gateways.items()
        }
        return {**{name: server.facts() for name, server in self.all.items()}, **gateways}

    def changes(self) -> list[dict[str, Any]]:
        """Return the flagged tools, each with its approved and its current version."""
        return [{"server": name, **change} for name, server in self.all.items() for change in server.changes()]

    async def _all_known(self) -> None:
        """Wait until the tools of each server are known."""
        for name, mcp_gateway in self._gateways.items():
            if not any(server.is_known for server in self.all.values() if server.table == name):
                await mcp_gateway.polled.wait()
        for server in [*self.all.values()]:
            if not server.is_known:
                await server.listed.wait()

    def _start_mcp_gateway(self, mcp_gateway: McpGateway) -> None:
        """Start the expected servers behind an mcp-gateway, and follow its list of adapters."""

        async def on_result(now: DiscoveryResult) -> None:
            present = [server for server in self.all.values() if server.table == mcp_gateway.name and server.adapter]
            for server in [server for server in present if server.adapter not in now.adapters]:
                del self.all[server.name]
                await server.close()
                self._tools_changed.set()
            for adapter in now.adapters:
                self._add_adapter(mcp_gateway, adapter)

        self._add_adapter(mcp_gateway, None)
        for adapter in mcp_gateway.known:
            self._add_adapter(mcp_gateway, adapter)
        self._gateways[mcp_gateway.name] = mcp_gateway
        self._tasks.append(asyncio.create_task(mcp_gateway.poll(on_result)))

    def _add_adapter(self, mcp_gateway: McpGateway, adapter: str | None) -> None:
        settings = mcp_gateway.settings_of(adapter)
        name = mcp_gateway.name if adapter is None else f"{mcp_gateway.name}/{adapter}"
        if settings is not None and name not in self.all:
            self._add(name, settings, mcp_gateway.auth)

    def _add(self, name: str, settings: McpServer, auth: "httpx2.Auth | None" = None) -> None:
        cached = self._tool_cache.load(name)
        self.all[name] = server = Server(name, settings, cached, self._listed, self._failed, auth=auth)
        server.start()

    def _known_tools(self) -> "list[FunctionTool]":
        return [tool for server in self.all.values() for tool in server.offer()]

    def _listed(self, server: Server) -> None:
        self._tool_cache.store(server.name, server.catalog)
        for name in server.catalog.flagged:
            self._flag(server, name)
        if {id(tool) for tool in self._known_tools()} != {id(tool) for tool in self._offered}:
            self._tools_changed.set()

    def _failed(self, server: Server, why: str) -> None:
        error = PluginError(
            f"cannot connect to MCP server {server.name}: {why}",
            source=f"[plugins.mcp_tools.{server.table}]",
            hint="the gateway connects again until it succeeds; GET /admin/mcp shows the state",
            code="mcp_unreachable",
        )
        self._gateway.report(error)

    def _flag(self, server: Server, name: str) -> None:
        entry = server.catalog.entries[name]
        assert entry.listed is not None
        seen = (server.name, name, entry.listed.digest)
        if seen in self._reported:
            return
        self._reported.add(seen)
        problem = "is new and not approved" if entry.approved is None else "differs from the approved version"
        self._gateway.report(
            ToolError(
                f"tool {sanitize(name)} of MCP server {server.name} {problem}",
                source=f"[plugins.mcp_tools.{server.table}]",
                hint=f"review it at /admin/mcp, then approve it: POST /admin/mcp/approve?server={server.name}",
                code="mcp_tool_changed",
            )
        )

    async def _reload(self) -> None:
        while True:
            await self._tools_changed.wait()
            self._tools_changed.clear()
            logger.debug("MCP tools changed; reloading")  # the reload logs what changed
            try:
                await self._gateway.reload()
            except Exception:
                logger.exception("reload after an MCP tool change failed")
