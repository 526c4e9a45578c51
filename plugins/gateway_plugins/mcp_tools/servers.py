"""All the servers of one gateway: started together, told of together, and listened to for changes of their tools.

It reloads the gateway when what is on offer changes; what a reload does is the gateway's.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gateway_core import Gateway, ToolError
from gateway_plugins.mcp_tools.memory import Memory
from gateway_plugins.mcp_tools.server import Server
from gateway_plugins.mcp_tools.settings import Settings
from gateway_plugins.mcp_tools.words import printable

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
        self._memory = Memory(gateway.state_folder)
        self._offered: list[FunctionTool] = []
        self._reported: set[tuple[str, str, str]] = set()
        self._dirty = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self.all: dict[str, Server] = {}

    async def start(self) -> None:
        """Begin to connect to all, and wait a moment for those of whose tools nothing is known."""
        for name, settings in self._settings.servers.items():
            self._add(Server(name, settings, self._memory.book(name), self._listed))
        self._reloading = asyncio.create_task(self._reload())
        unknown = [server.listed.wait() for server in self.all.values() if not server.is_known]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.start_timeout):
                await asyncio.gather(*unknown)

    async def close(self) -> None:
        """Let all sessions go."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait([self._reloading])
        await asyncio.gather(*(server.close() for server in self.all.values()))

    def offer(self) -> "list[FunctionTool]":
        """The tools of all servers, as far as they are known."""
        self._offered = self._known()
        return self._offered

    def facts(self) -> Mapping[str, Any]:
        """By server."""
        return {name: server.facts() for name, server in self.all.items()}

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
                f"the tool {printable(name)} of the MCP server {server.name} {what}",
                source=f"[plugins.mcp_tools.{server.settings_key}]",
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
