"""Connects the MCP servers of an agent's own when the agent is loaded, and reconnects lost connections.

A module cannot connect them itself, because it is imported outside any event loop. This module does not authorize tool
calls.
"""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from agents import Agent
from agents.exceptions import UserError
from agents.mcp import MCPServer, MCPServerStdio
from mcp import stdio_client

from gateway_core.errors import ToolError
from gateway_core.observability.stderr_tail import StderrTail
from gateway_core.observability.trace_context import trace_headers

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0


def _without_content(record: logging.LogRecord) -> bool:
    """Shorten the MCP client's record of a line that is not a message, which has a traceback and quotes the line."""
    if record.exc_info and "parse" in str(record.msg):
        record.msg, record.args, record.exc_info = _NO_MESSAGE, (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


_NO_MESSAGE = (
    "an MCP server wrote a line to its standard output that is not a JSON-RPC message; "
    "a server must print everything else to its standard error"
)
logging.getLogger("mcp.client.stdio").addFilter(_without_content)


async def connect_servers(agents: Iterable[Agent[Any]], held: AsyncExitStack) -> list[str]:
    """Connect the MCP servers of all these agents concurrently, and push their cleanup onto a stack.

    The first run that needs an unreachable server tries to connect to it again.

    Returns:
        One warning for each unreachable server.
    """
    servers = {id(server): server for agent in agents for server in agent.mcp_servers}
    for server in servers.values():
        _prepend_own_path(server)
    connections = [_Connection(server) for server in servers.values() if not isinstance(server.list_tools, _Wrapper)]
    for connection in connections:
        held.push_async_callback(connection.close)
    warnings = await asyncio.gather(*(connection.connect() for connection in connections))
    return [warning for warning in warnings if warning]


def _prepend_own_path(server: MCPServer) -> None:
    """Resolve a server's command, such as `python`, in the gateway's environment first, even if it is not activated."""
    if isinstance(server, MCPServerStdio):
        own = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))}
        server.params.env = {**own, **(server.params.env or {})}


class _Connection:
    """Keeps one server connected; its methods replace the server's own."""

    def __init__(self, server: MCPServer) -> None:
        self._server = server
        self._list_tools, self._call_tool = server.list_tools, server.call_tool
        self._takes_meta = "meta" in inspect.signature(server.call_tool).parameters
        self._lock = asyncio.Lock()
        self._generation = 0
        vars(server).update(list_tools=_Wrapper(self.list_tools), call_tool=_Wrapper(self.call_tool))
        self._stderr: StderrTail | None = None
        if isinstance(server, MCPServerStdio) and type(server).create_streams is MCPServerStdio.create_streams:
            vars(server)["create_streams"] = self._streams

    async def connect(self) -> str | None:
        """Connect for the first time. Returns a warning if that fails."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._server.connect()  # type: ignore[no-untyped-call]
        except Exception as error:
            failure = f"{type(error).__name__}{self._stderr or ''}"
            logger.warning("could not connect to the MCP server %s: %s", self._server.name, failure)
            return f"could not connect to its MCP server {self._server.name} ({failure}); runs retry the connection"
        return None

    async def list_tools(self, *arguments: Any, **options: Any) -> Any:
        """Call the server's `list_tools`; reconnect and retry once if the connection is lost. Listing is idempotent."""
        generation = self._generation
        try:
            return await self._list_tools(*arguments, **options)
        except Exception as error:
            if not _is_lost(error):
                raise
            await self._reconnect(generation)
            return await self._list_tools(*arguments, **options)

    async def call_tool(self, *arguments: Any, **options: Any) -> Any:
        """Call the server's `call_tool`; reconnect if the connection is lost, for later calls.

        The call itself is not retried, because it may already have had its effect.
        """
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
        """Restore the server's methods and disconnect it."""
        vars(self._server).update(list_tools=self._list_tools, call_tool=self._call_tool)
        vars(self._server).pop("create_streams", None)
        try:
            await self._server.cleanup()  # type: ignore[no-untyped-call]
        except Exception as error:
            logger.warning("closing the MCP server %s failed: %s", self._server.name, type(error).__name__)

    async def _reconnect(self, generation: int) -> None:
        async with self._lock:
            if self._generation != generation:
                return  # another run has reconnected meanwhile
            logger.info("lost the connection to the MCP server %s; reconnecting", self._server.name)
            try:
                await self._server.cleanup()  # type: ignore[no-untyped-call]
            except Exception as error:
                logger.debug("cleaning up a lost MCP server failed: %s", type(error).__name__)
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._server.connect()  # type: ignore[no-untyped-call]
            except Exception as error:
                # The SDK's default name of a server is its command or its URL, which clients must not see.
                raise ToolError(
                    "could not connect to an MCP server of the agent",
                    source=self._server.name,
                    hint=str(self._stderr or "").removeprefix("; ") or None,
                    code="mcp_unreachable",
                ) from error
            self._generation += 1

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[Any]:
        """Start the server's process as the SDK does, and keep the end of its standard error."""
        assert isinstance(self._server, MCPServerStdio)
        self._stderr = StderrTail(lambda line: sys.stderr.write(f"{line}\n"))
        try:
            async with stdio_client(self._server.params, errlog=self._stderr.file) as streams:
                yield streams
        finally:
            await asyncio.to_thread(self._stderr.close)


class _Wrapper:
    """Marks a method that a `_Connection` has installed on a server."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._method(*arguments, **options)


def _is_lost(error: BaseException) -> bool:
    """Whether an error means that the server is not connected. The MCP client has no error type for that."""
    if isinstance(error, UserError):
        return "not initialized" in str(error) or _caused_by_loss(error)
    return _is_connection_error(error) or _caused_by_loss(error)


def _caused_by_loss(error: BaseException) -> bool:
    cause = error.__cause__ or error.__context__
    return cause is not None and _is_lost(cause)


def _is_connection_error(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(
        names & {"ClosedResourceError", "BrokenResourceError", "ConnectError", "ConnectionError"}
        or (names & {"MCPError", "McpError"} and "closed" in str(error).lower())
    )
