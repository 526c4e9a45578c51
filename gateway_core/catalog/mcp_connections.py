"""The MCP servers that an author put on an agent: connected when it is loaded, connected again when they were lost.

A dropped-in module cannot connect them by itself, because it is imported outside any event loop. Nothing here decides
which tools may be called.
"""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from agents import Agent
from agents.exceptions import UserError
from agents.mcp import MCPServer, MCPServerStdio

from gateway_core.errors import ToolError
from gateway_core.observability.trace_context import trace_headers

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0


async def connect_servers(agents: Iterable[Agent[Any]], held: AsyncExitStack) -> list[str]:
    """Connect the servers of all these agents, at the same time, and hold them on a stack.

    A server that cannot be reached is tried again by the first run that needs it.

    Returns:
        What an operator should know: one sentence a server that cannot be reached.
    """
    servers = {id(server): server for agent in agents for server in agent.mcp_servers}
    for server in servers.values():
        _offer_own_commands(server)
    keepers = [_Keeper(server) for server in servers.values() if not isinstance(server.list_tools, _Kept)]
    for keeper in keepers:
        held.push_async_callback(keeper.close)
    problems = await asyncio.gather(*(keeper.connect() for keeper in keepers))
    return [problem for problem in problems if problem]


def _offer_own_commands(server: MCPServer) -> None:
    """Let a server's command, such as `python`, mean the gateway's own, also when its environment is not activated."""
    if isinstance(server, MCPServerStdio):
        own = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))}
        server.params.env = {**own, **(server.params.env or {})}


class _Keeper:
    """Keeps one server connected; its methods stand in for the server's own."""

    def __init__(self, server: MCPServer) -> None:
        self._server = server
        self._list_tools, self._call_tool = server.list_tools, server.call_tool
        self._takes_meta = "meta" in inspect.signature(server.call_tool).parameters
        self._lock = asyncio.Lock()
        self._generation = 0
        vars(server).update(list_tools=_Kept(self.list_tools), call_tool=_Kept(self.call_tool))

    async def connect(self) -> str | None:
        """Connect for the first time. Returns what went wrong."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._server.connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            logger.warning("the MCP server %s cannot be reached: %s", self._server.name, type(error).__name__)
            return f"its MCP server {self._server.name} cannot be reached ({type(error).__name__}); runs try it again"
        return None

    async def list_tools(self, *arguments: Any, **options: Any) -> Any:
        """As the server does; a lost connection is made again once. Listing twice does no harm."""
        generation = self._generation
        try:
            return await self._list_tools(*arguments, **options)
        except Exception as error:
            if not _is_lost(error):
                raise
            await self._reconnect(generation)
            return await self._list_tools(*arguments, **options)

    async def call_tool(self, *arguments: Any, **options: Any) -> Any:
        """As the server does. A lost connection is made again for later calls; this one may have had its effect."""
        generation = self._generation
        if self._takes_meta and (trace := trace_headers()):
            # https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp/#context-propagation
            options["meta"] = {**trace, **(options.get("meta") or {})}
        try:
            return await self._call_tool(*arguments, **options)
        except Exception as error:
            if _is_lost(error):
                await self._reconnect(generation)
            raise

    async def close(self) -> None:
        """Let the server go."""
        vars(self._server).update(list_tools=self._list_tools, call_tool=self._call_tool)
        try:
            await self._server.cleanup()  # type: ignore[no-untyped-call]
        except Exception as error:
            logger.warning("the MCP server %s was not closed well: %s", self._server.name, type(error).__name__)

    async def _reconnect(self, generation: int) -> None:
        async with self._lock:
            if self._generation != generation:
                return  # another run did it meanwhile
            logger.info("the connection to the MCP server %s was lost, and is made again", self._server.name)
            try:
                await self._server.cleanup()  # type: ignore[no-untyped-call]
            except Exception as error:
                logger.debug("a lost MCP server could not be cleaned up: %s", type(error).__name__)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._server.connect()  # type: ignore[no-untyped-call]
            except Exception as error:
                raise ToolError(
                    f"the MCP server {self._server.name} cannot be reached", code="mcp_unreachable"
                ) from error
            self._generation += 1


class _Kept:
    """Marks a method that a keeper has put on a server."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._method(*arguments, **options)


def _is_lost(error: BaseException) -> bool:
    """Whether an error means that there is no connection (any more). The client raises no type of its own for it."""
    if isinstance(error, UserError):
        return "not initialized" in str(error) or _caused_by_loss(error)
    return _says_lost(error) or _caused_by_loss(error)


def _caused_by_loss(error: BaseException) -> bool:
    cause = error.__cause__ or error.__context__
    return cause is not None and _is_lost(cause)


def _says_lost(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(
        names & {"ClosedResourceError", "BrokenResourceError", "ConnectError", "ConnectionError"}
        or (names & {"MCPError", "McpError"} and "closed" in str(error).lower())
    )
