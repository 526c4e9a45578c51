"""One MCP server: the list of its tools, what is offered of it, and what an operator should know.

How a call is made is in `calls.py`; who may make it is not decided in this plugin.
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
from gateway_plugins.mcp_tools.failures import McpCallError, UnreachableError, reason
from gateway_plugins.mcp_tools.listing import Book, Entry, Listed
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.session import Limits, Session
from gateway_plugins.mcp_tools.settings import McpServer
from gateway_plugins.mcp_tools.transports import open_session

if TYPE_CHECKING:
    from agents import FunctionTool

logger = logging.getLogger(__name__)

MAX_PAGES = 100


class Server:
    """One server.

    Args:
        name: What operators call it, such as `github` or `corp/weather`.
        settings: How to talk to it.
        url: Where it is, for the kinds that have an address.
        book: What is known of its tools already.
        auth: What signs requests; made from the settings unless servers share one.
        on_listed: Called with this server when what is known of its tools has changed.
    """

    def __init__(
        self,
        name: str,
        settings: McpServer,
        book: Book,
        on_listed: "Callable[[Server], None]",
        *,
        url: str | None = None,
        auth: httpx2.Auth | None = None,
    ) -> None:
        self.name = name
        self.book = book
        self.settings = settings
        self.listed = asyncio.Event()
        """Set when the server has listed its tools since the start."""
        self.listed_at: float | None = None
        self._url = url or settings.url
        self._auth = auth or credential(settings)
        self._on_listed = on_listed
        self._limits = Limits(settings.connect_timeout, settings.timeout)
        self._changed = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None
        self._own = self._link(None)
        self._calls = Calls(name, settings, self._own, self._link)
        self._made: dict[str, tuple[Entry, FunctionTool]] = {}

    def start(self) -> None:
        """Begin to connect, and to keep the list of tools."""
        self._own.start()
        self._listing = asyncio.create_task(self._keep_listing())

    async def close(self) -> None:
        """Let all its sessions go."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait([self._listing])
        await asyncio.gather(self._own.close(), self._calls.close())

    @property
    def is_known(self) -> bool:
        """Whether anything can be offered before the server is up."""
        return bool(self.settings.tools or any(entry.listed for entry in self.book.entries.values()))

    @property
    def is_up(self) -> bool:
        """Whether there is a session with it."""
        return self._own.state == "up"

    def offer(self) -> "list[FunctionTool]":
        """Its tools, as far as they are known. A tool is the same object until something changes about it."""
        entries = {name: entry for name, entry in self.book.entries.items() if entry.listed and self._wants(name)}
        for name in self.settings.tools:
            entries.setdefault(name, Entry(Listed.unknown(name), None))
        if self.settings.pin:
            # What nobody has approved, no model reads.
            entries = {name: entry for name, entry in entries.items() if entry.approved or not self.listed_at}
        called = tools.names(self.name.replace("/", "__"), entries)
        made = {called[name]: self._made_of(called[name], entry) for name, entry in entries.items()}
        self._made = made
        return [tool for _, tool in made.values()]

    def approve(self, names: list[str] | None) -> list[str]:
        """Approve tools as they are now; without names, all that are flagged.

        Raises:
            KeyError: There is no such tool.
        """
        chosen = self.book.flagged if names is None else names
        self.book = self.book.approve(chosen)
        self._on_listed(self)
        return chosen

    def facts(self) -> dict[str, Any]:
        """What an operator should know, as JSON."""
        link = self._own
        return {
            "kind": self.settings.kind,
            "state": link.state,
            "failing": link.is_open,
            "last_error": link.last_error,
            "reconnects": max(0, link.sessions - 1),
            "principals": self._calls.principals,
            "listed_at": self.listed_at,
            "pin": self.settings.pin,
            "tools": [sanitize(name) for name, entry in self.book.entries.items() if entry.listed],
            "flagged": [sanitize(name) for name in self.book.flagged],
        }

    def changes(self) -> list[dict[str, Any]]:
        """The tools that an operator should look at: as they were, and as they are."""
        return [
            {
                "tool": name,
                "approved": _shown(self.book.entries[name].approved),
                "now": _shown(self.book.entries[name].listed),
            }
            for name in self.book.flagged
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], call_id: str) -> Any:
        """Call a tool for the run that is on.

        Raises:
            McpCallError: It failed, or was not made.
        """
        entry = self.book.entries.get(name)
        if self.settings.pin and (entry is None or entry.approved is None or entry.flagged):
            raise McpCallError(f"The tool {name} was not called: its server changed it, and nobody has approved that.")
        safe = name in self.settings.idempotent or (
            entry is not None and entry.listed is not None and entry.listed.safe
        )
        return await self._calls.make(name, arguments, call_id, safe=safe)

    @property
    def table(self) -> str:
        """The name of the table that it is configured by."""
        return self.name.partition("/")[0]

    @property
    def adapter(self) -> str:
        """For a server behind an mcp-gateway: its name there."""
        return self.name.partition("/")[2]

    def _link(self, principal: str | None) -> ConnectionSupervisor:
        opener = partial(open_session, self.name, self.settings, self._url, auth=self._auth, principal=principal)
        if principal is not None:
            return ConnectionSupervisor(self.name, opener, self._limits)
        return ConnectionSupervisor(self.name, opener, self._limits, on_up=self._relist, on_change=self._relist)

    def _relist(self) -> None:
        self._changed.set()

    async def _keep_listing(self) -> None:
        while True:
            self._changed.clear()
            if self._own.state == "up":
                await self._list()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.list_ttl or None):
                    await self._changed.wait()

    async def _list(self) -> None:
        session: Session | None = None
        exchange = RequestTrace()
        try:
            session = await self._own.session()
            async with session.use() as client, asyncio.timeout(self._limits.connect):
                token = REQUEST_TRACE.set(exchange)
                try:
                    found = [Listed.from_tool(tool) async for tool in _all_tools(client)]
                finally:
                    REQUEST_TRACE.reset(token)
        except UnreachableError:
            return
        except Exception as error:
            self._own.last_error = f"its tools cannot be listed: {reason(error, exchange)}"
            logger.warning("the tools of the MCP server %s cannot be listed: %s", self.name, reason(error, exchange))
            if session is not None and (session_lost(error, exchange) or isinstance(error, TimeoutError)):
                self._own.lost(session)
            return
        self.listed_at = time.time()
        self.book = self.book.updated((tool for tool in found if self._wants(tool.name)), pin=self.settings.pin)
        self._on_listed(self)
        self.listed.set()

    def _wants(self, name: str) -> bool:
        return not self.settings.tools or name in self.settings.tools

    def _made_of(self, called: str, entry: Entry) -> "tuple[Entry, FunctionTool]":
        before = self._made.get(called)
        if before is not None and before[0] == entry:
            return before
        shown = (entry.approved if self.settings.pin else None) or entry.listed
        assert shown is not None
        seconds = self.settings.connect_timeout * 2 + self.settings.timeout
        tool = tools.as_function_tool(called, shown, self.name, self.call, seconds=seconds, is_open=self.settings.open)
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
    logger.warning("an MCP server lists its tools on more than %d pages; the rest is left out", MAX_PAGES)


def _shown(listed: Listed | None) -> dict[str, Any] | None:
    return None if listed is None else {"description": listed.description, "parameters": listed.parameters}
