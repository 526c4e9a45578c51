"""One MCP server: its sessions, the list of its tools, and the calls that are made of them.

A call is made again only where that can do no harm. Who may make it is not decided here.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx2
from attrs import frozen
from mcp import Client
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT, CallToolResult

from gateway_core import current_run, progress_teller
from gateway_plugins.mcp_tools import results, tools
from gateway_plugins.mcp_tools.credentials import credential
from gateway_plugins.mcp_tools.exchange import EXCHANGE, Exchange
from gateway_plugins.mcp_tools.failures import McpCallError, UnreachableError, is_lost, reason
from gateway_plugins.mcp_tools.forwarding import FORWARDED
from gateway_plugins.mcp_tools.listing import Book, Entry, Listed
from gateway_plugins.mcp_tools.sessions import Link, Session
from gateway_plugins.mcp_tools.settings import McpServer
from gateway_plugins.mcp_tools.transports import open_session
from gateway_plugins.mcp_tools.words import printable

if TYPE_CHECKING:
    from agents import FunctionTool

logger = logging.getLogger(__name__)

MAX_PAGES = 100
MAX_PRINCIPALS = 100
IDLE_SECONDS = 600.0
_PROGRESS_SECONDS = 0.25
_PROGRESS_CHARACTERS = 200


@frozen
class Limits:
    """Seconds."""

    connect: float
    call: float


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
        self._of_principals: dict[str, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()
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
        links = [self._own, *self._of_principals.values()]
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    @property
    def is_known(self) -> bool:
        """Whether anything can be offered before the server is up."""
        return bool(self.settings.tools or any(entry.listed for entry in self.book.entries.values()))

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
            "principals": len(self._of_principals),
            "listed_at": self.listed_at,
            "pin": self.settings.pin,
            "tools": [printable(name) for name, entry in self.book.entries.items() if entry.listed],
            "flagged": [printable(name) for name in self.book.flagged],
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
        result = await self._call(name, arguments, safe=safe, tell=_slowly(progress_teller(call_id)))
        if result.is_error:
            raise McpCallError(results.as_text(result, self.settings.max_result))
        return results.as_output(result, self.settings.max_result)

    async def _call(self, name: str, arguments: Mapping[str, Any], *, safe: bool, tell: ProgressFnT) -> CallToolResult:
        link = self._link_of_run()
        for again in (False, True):
            exchange = Exchange(headers=FORWARDED.get().get(self.table, {}))
            session = await link.session()
            try:
                async with session.use() as client, self._within_time():
                    return await _with(exchange, client, name, arguments, self.settings.timeout, tell)
            except McpCallError:
                raise
            except Exception as error:
                if not _session_lost(error, exchange):
                    raise self._failure(error, exchange) from None
                link.lost(session)
                # A server that knows no such session, or took no connection, has not begun with the call.
                if again or not (safe or exchange.unsent or exchange.status == 404):
                    raise self._failure(error, exchange) from None
        raise AssertionError("the second try returns or raises")

    @property
    def table(self) -> str:
        """The name of the table that it is configured by."""
        return self.name.partition("/")[0]

    @property
    def adapter(self) -> str:
        """For a server behind an mcp-gateway: its name there."""
        return self.name.partition("/")[2]

    @asynccontextmanager
    async def _within_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.settings.timeout):
                yield
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> McpCallError:
        return McpCallError(f"The tool's server did not answer within {self.settings.timeout:g} seconds.")

    def _failure(self, error: Exception, exchange: Exchange) -> McpCallError:
        if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
            return self._too_slow()
        logger.info("a call of the MCP server %s failed: %s", self.name, reason(error, exchange))
        return McpCallError(f"The call failed at the tool's server: {reason(error, exchange)}.")

    def _link_of_run(self) -> Link:
        run = current_run()
        if self.settings.identity == "shared" or run is None:
            return self._own
        principal = run.principal.id
        link = self._of_principals.pop(principal, None) or self._link(principal)
        # The last one used stands last.
        self._of_principals[principal] = link
        self._forget_idle()
        return link

    def _forget_idle(self) -> None:
        now = time.monotonic()
        for principal, link in [*self._of_principals.items()]:
            if len(self._of_principals) <= MAX_PRINCIPALS and now - link.used < IDLE_SECONDS:
                break
            if link.busy:
                continue
            del self._of_principals[principal]
            closing = asyncio.create_task(link.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _link(self, principal: str | None) -> Link:
        opener = partial(open_session, self.name, self.settings, self._url, auth=self._auth, principal=principal)
        if principal is not None:
            return Link(self.name, opener, self._limits)
        return Link(self.name, opener, self._limits, on_up=self._relist, on_change=self._relist)

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
        exchange = Exchange()
        try:
            session = await self._own.session()
            async with session.use() as client, asyncio.timeout(self._limits.connect):
                token = EXCHANGE.set(exchange)
                try:
                    found = [Listed.from_tool(tool) async for tool in _all_tools(client)]
                finally:
                    EXCHANGE.reset(token)
        except UnreachableError:
            return
        except Exception as error:
            self._own.last_error = f"its tools cannot be listed: {reason(error, exchange)}"
            logger.warning("the tools of the MCP server %s cannot be listed: %s", self.name, reason(error, exchange))
            if session is not None and (_session_lost(error, exchange) or isinstance(error, TimeoutError)):
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


async def _with(
    exchange: Exchange,
    client: Client,
    name: str,
    arguments: Mapping[str, Any],
    seconds: float,
    tell: ProgressFnT,
) -> CallToolResult:
    token = EXCHANGE.set(exchange)
    try:
        return await client.call_tool(name, dict(arguments), seconds, tell)
    finally:
        EXCHANGE.reset(token)


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


def _session_lost(error: Exception, exchange: Exchange) -> bool:
    """Whether another session is needed. Some gateways answer 500 where a session is unknown."""
    if exchange.too_big:
        return False
    status = exchange.status or 0
    return exchange.failed or is_lost(error) or (exchange.in_session and (status == 404 or status >= 500))


def _slowly(tell: Callable[[str], None]) -> ProgressFnT:
    """Passes on a server's notices of progress, a few a second."""
    last = 0.0

    async def tell_now(progress: float, total: float | None, message: str | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            amount = f"{progress:g} of {total:g}" if total else f"{progress:g}"
            tell(printable(message or amount, _PROGRESS_CHARACTERS))

    return tell_now


def _shown(listed: Listed | None) -> dict[str, Any] | None:
    return None if listed is None else {"description": listed.description, "parameters": listed.parameters}
