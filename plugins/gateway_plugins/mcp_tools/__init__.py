"""Tools of MCP servers that an operator configures, for any agent to use by name.

It connects to the servers and offers what they list. It neither decides who may call a tool nor which agent has it.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from gateway_core import Gateway, Measurement, hookimpl
from gateway_plugins.mcp_tools.forwarding import Forwarding
from gateway_plugins.mcp_tools.settings import Settings

if TYPE_CHECKING:
    from agents import Tool

    from gateway_plugins.mcp_tools.servers import Servers


@contextmanager
def _discreet() -> Iterator[None]:
    """The protocol's client writes sessions' ids and whole messages to its log, below WARNING."""
    logger = logging.getLogger("mcp.client")
    before = logger.level
    logger.setLevel(max(before, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


class McpTools:
    """The plugin `mcp_tools`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._config = config
        self._servers: Servers | None = None

    @hookimpl
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Sessions with all servers, made in the background."""

        @asynccontextmanager
        async def hold() -> AsyncIterator[None]:
            if not self._config.servers:
                yield
                return
            # The protocol's own package takes half a second to import.
            from gateway_plugins.mcp_tools.servers import Servers

            self._servers = servers = Servers(self._gateway, self._config)
            with _discreet():
                try:
                    await servers.start()
                    yield
                finally:
                    self._servers = None
                    await servers.close()

        return hold()

    @hookimpl
    def offer_tools(self) -> "Iterable[Tool]":
        """What is known of the servers' tools."""
        return self._servers.offer() if self._servers else ()

    @hookimpl
    def middleware(self) -> Iterable[Middleware]:
        """Takes the headers that may be passed on, where there are any."""
        allowed = {name: s.forward_headers for name, s in self._config.servers.items() if s.forward_headers}
        return [Middleware(Forwarding, allowed=allowed)] if allowed else []

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """What operators ask of the servers, and the approval of tools that changed."""
        from gateway_plugins.mcp_tools.routes import admin_routes

        return admin_routes(lambda: self._servers)

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Whether there is a session with each server."""
        for name, server in [*self._servers.all.items()] if self._servers else ():
            yield Measurement(
                "agent_gateway.mcp.server.up",
                int(server.is_up),
                "1",
                "Whether there is a session with an MCP server.",
                {"server": name},
            )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The servers' states."""
        return {"servers": self._servers.facts() if self._servers else {}}
