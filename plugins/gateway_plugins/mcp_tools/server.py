"""Manages one MCP server: keeps the list of its tools, offers them to agents, and reports its state to operators.

`calls.py` makes the calls. This plugin does not authorize them.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
from mcp import Client

from gateway_plugins.mcp_tools import tools
from gateway_plugins.mcp_tools.calls import Calls, session_lost
from gateway_plugins.mcp_tools.connection_supervisor import ConnectionSupervisor
from gateway_plugins.mcp_tools.credentials import credential
from gateway_plugins.mcp_tools.error_mapping import McpCallError, UnreachableError, reason
from gateway_plugins.mcp_tools.request_trace import RequestTrace, traced
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.session import Session
from gateway_plugins.mcp_tools.settings import McpServer
from gateway_plugins.mcp_tools.tool_catalog import ListedTool, ToolCatalog, ToolEntry
from gateway_plugins.mcp_tools.transports import open_session

if TYPE_CHECKING:
    from agents import FunctionTool

logger = logging.getLogger(__name__)

MAX_PAGES = 100


class Server:
    """One MCP server.

    Args:
        name: Name in the configuration, such as `github`, or `corp/weather` behind an mcp-gateway.
        settings: Settings of the server.
        catalog: The cached tools.
        on_listed: Called with this server when its tools were listed or approved.
        on_failure: Called with this server and the reason when it cannot be connected.
        auth: Authentication that is shared with other servers; by default it is created from the settings.
    """

    def __init__(
        self,
        name: str,
        settings: McpServer,
        catalog: ToolCatalog,
        on_listed: "Callable[[Server], None]",
        on_failure: "Callable[[Server, str], None]",
        *,
        auth: httpx2.Auth | None = None,
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.settings = settings
        self.listed = asyncio.Event()
        """Set after the server has listed its tools for the first time."""
        self.listed_at: float | None = None
        self._auth = auth or credential(settings)
        self._on_listed = on_listed
        self._on_failure = partial(on_failure, self)
        self._changed = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None
        self._shared = self._make_supervisor(None)
        self._calls = Calls(name, settings, self._shared, self._make_supervisor)
        self._tools: dict[str, tuple[ToolEntry, FunctionTool]] = {}

    def start(self) -> None:
        """Start connecting, and keep the list of tools up to date."""
        self._shared.start()
        self._listing = asyncio.create_task(self._refresh_tools())

    async def close(self) -> None:
        """Close all sessions."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait([self._listing])
        await asyncio.gather(self._shared.close(), self._calls.close())

    @property
    def is_known(self) -> bool:
        """Whether any tools can be offered before the server is connected."""
        return bool(self.settings.tools or any(entry.listed for entry in self.catalog.entries.values()))

    @property
    def is_up(self) -> bool:
        """Whether the server is connected."""
        return self._shared.state == "up"

    @property
    def last_error(self) -> str | None:
        """The last failure of the connection, for operators."""
        return self._shared.last_error

    def offer(self) -> "list[FunctionTool]":
        """Return the known tools. A tool stays the same object until it changes."""
        entries = {name: entry for name, entry in self.catalog.entries.items() if entry.listed and self._selects(name)}
        for name in self.settings.tools:
            entries.setdefault(name, ToolEntry(ListedTool.unknown(name), None))
        if self.settings.pin:
            # Models must not read descriptions that are not approved.
            entries = {name: entry for name, entry in entries.items() if entry.approved or not self.listed_at}
        exposed = tools.names(self.name.replace("/", "__"), entries)
        made = {exposed[name]: self._tool_for(exposed[name], entry) for name, entry in entries.items()}
        self._tools = made
        return [tool for _, tool in made.values()]

    def approve(self, names: list[str] | None) -> list[str]:
        """Approve the listed versions of tools, by default of all flagged ones, and return their names.

        Raises:
            KeyError: A tool does not exist.
        """
        chosen = self.catalog.flagged if names is None else names
        self.catalog = self.catalog.approve(chosen)
        self._on_listed(self)
        return chosen

    def facts(self) -> dict[str, Any]:
        """Return the state of the server as JSON, for operators."""
        supervisor = self._shared
        return {
            "kind": self.settings.kind,
            "state": supervisor.state,
            "failing": supervisor.is_open,
            "last_error": supervisor.last_error,
            "reconnects": max(0, supervisor.sessions - 1),
            "principals": self._calls.principals,
            "listed_at": self.listed_at,
            "pin": self.settings.pin,
            "tools": [sanitize(name) for name, entry in self.catalog.entries.items() if entry.listed],
            "flagged": [sanitize(name) for name in self.catalog.flagged],
        }

    def changes(self) -> list[dict[str, Any]]:
        """Return the flagged tools, each with its approved and its current version."""
        return [
            {
                "tool": name,
                "approved": _shown(self.catalog.entries[name].approved),
                "now": _shown(self.catalog.entries[name].listed),
            }
            for name in self.catalog.flagged
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], call_id: str) -> Any:
        """Call a tool for the current run.

        Raises:
            McpCallError: The call failed, or was rejected because the tool has changed.
        """
        entry = self.catalog.entries.get(name)
        if self.settings.pin and (entry is None or entry.approved is None or entry.flagged):
            raise McpCallError(f"The tool {name} was not called: it has changed and is not approved.")
        safe = name in self.settings.idempotent or (
            entry is not None and entry.listed is not None and entry.listed.safe
        )
        return await self._calls.make(name, arguments, call_id, safe=safe)

    @property
    def table(self) -> str:
        """Name of the configuration table."""
        return self.name.partition("/")[0]

    @property
    def adapter(self) -> str:
        """Name of the adapter, for a server behind an mcp-gateway."""
        return self.name.partition("/")[2]

    def _make_supervisor(self, principal: str | None) -> ConnectionSupervisor:
        opener = partial(open_session, self.name, self.settings, self._auth, principal)
        # The tools are listed in the shared session only.
        on_change = self._changed.set if principal is None else lambda: None
        return ConnectionSupervisor(self.name, opener, self.settings, on_change, self._on_failure)

    async def _refresh_tools(self) -> None:
        while True:
            self._changed.clear()
            if self._shared.state == "up":
                await self._list_tools()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.list_ttl or None):
                    await self._changed.wait()

    async def _list_tools(self) -> None:
        session: Session | None = None
        trace = RequestTrace()
        try:
            session = await self._shared.session()
            async with session.use() as client, asyncio.timeout(self.settings.connect_timeout):
                with traced(trace):
                    found = [ListedTool.from_tool(tool) async for tool in _all_tools(client)]
        except UnreachableError:
            return
        except Exception as error:
            self._shared.last_error = f"could not list tools: {reason(error, trace)}"
            logger.warning("could not list the tools of MCP server %s: %s", self.name, reason(error, trace))
            if session is not None and (session_lost(error, trace) or isinstance(error, TimeoutError)):
                self._shared.lost(session)
            return
        self.listed_at = time.time()
        self.catalog = self.catalog.updated((tool for tool in found if self._selects(tool.name)), pin=self.settings.pin)
        self._on_listed(self)
        self.listed.set()

    def _selects(self, name: str) -> bool:
        return not self.settings.tools or name in self.settings.tools

    def _tool_for(self, exposed: str, entry: ToolEntry) -> "tuple[ToolEntry, FunctionTool]":
        before = self._tools.get(exposed)
        if before is not None and before[0] == entry:
            return before
        shown = (entry.approved if self.settings.pin else None) or entry.listed
        assert shown is not None
        seconds = self.settings.connect_timeout * 2 + self.settings.timeout
        tool = tools.as_function_tool(exposed, shown, self.name, self.call, seconds=seconds, is_open=self.settings.open)
        return entry, tool


async def _all_tools(client: Client) -> AsyncIterator[Any]:
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            yield tool
        cursor = page.next_cursor
        if cursor is None:
            return
    logger.warning("tool list of an MCP server exceeds %d pages; the remaining tools are ignored", MAX_PAGES)


def _shown(listed: ListedTool | None) -> dict[str, Any] | None:
    return None if listed is None else {"description": listed.description, "parameters": listed.parameters}
