"""Makes the tools of configured MCP servers available to agents by name.

The plugin connects to the servers and offers the tools that they list. It decides neither who may call a tool nor
which agent has it.
"""

import logging
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from gateway_core import SUSPICIOUS, ConfigError, Gateway, Measurement, hookimpl
from gateway_plugins.mcp_tools.header_forwarding import Forwarding
from gateway_plugins.mcp_tools.settings import Settings

if TYPE_CHECKING:
    from agents import Tool

    from gateway_plugins.mcp_tools.registry import Servers


@contextmanager
def _quiet_client_log() -> Iterator[None]:
    """Raise the log level of the MCP client to WARNING: below it, it logs session ids and whole messages."""
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
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Connect to all servers in the background, and disconnect on shutdown."""
        if not self._config.servers:
            yield
            return
        # Importing the `mcp` package takes half a second.
        from gateway_plugins.mcp_tools.registry import Servers

        self._servers = servers = Servers(self._gateway, self._config)
        with _quiet_client_log():
            self._report_missing_files()
            try:
                await servers.start()
                yield
            finally:
                self._servers = None
                await servers.close()

    def _report_missing_files(self) -> None:
        """Report programs, folders and files that do not exist yet."""
        for name, server in self._config.servers.items():
            program = server.command[0] if server.command else ""
            missing: dict[str, str] = {}
            # A path may be relative to `cwd`, and `env` may set another PATH.
            if program and "/" not in program and "PATH" not in server.env and shutil.which(program) is None:
                missing["command"] = f"the program '{program}' is not in PATH"
            if server.cwd is not None and not server.cwd.is_dir():
                missing["cwd"] = f"the folder {server.cwd} does not exist"
            if server.token_file is not None and not server.token_file.is_file():
                missing["token_file"] = f"the file {server.token_file} does not exist"
            for key, message in missing.items():
                source, hint = f"[plugins.mcp_tools.{name}] {key}", "create or install it, or write its whole path"
                self._gateway.report(ConfigError(message, source=source, hint=hint, code=SUSPICIOUS))

    @hookimpl
    def offer_tools(self) -> "Iterable[Tool]":
        """Return the known tools of all servers."""
        return self._servers.offer() if self._servers else ()

    @hookimpl
    def explain_missing_tool(self, name: str) -> str | None:
        """Return the failure of the server that would offer the tool."""
        return self._servers.explain(name) if self._servers else None

    @hookimpl
    def middleware(self) -> Iterable[Middleware]:
        """Return the middleware that collects forwarded headers, if a server has `forward_headers`."""
        allowed = {name: s.forward_headers for name, s in self._config.servers.items() if s.forward_headers}
        return [Middleware(Forwarding, allowed=allowed)] if allowed else []

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """Return the admin routes that show the servers and approve changed tools."""
        from gateway_plugins.mcp_tools.routes import admin_routes

        return admin_routes(lambda: self._servers)

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Yield one measurement for each server: whether it is connected."""
        for name, server in [*self._servers.all.items()] if self._servers else ():
            yield Measurement(
                "agent_gateway.mcp.server.up",
                int(server.is_up),
                "1",
                "Whether an MCP server is connected (1) or not (0).",
                {"server": name},
            )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the state of each server."""
        return {"servers": self._servers.facts() if self._servers else {}}
