"""The calls of one server's tools: in whose session they are made, for how long, and when they are made again.

A call is made again only where that can do no harm. Who may make it is not decided here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT, CallToolResult

from gateway_core import current_run, progress_reporter
from gateway_plugins.mcp_tools import results
from gateway_plugins.mcp_tools.connection_supervisor import ConnectionSupervisor
from gateway_plugins.mcp_tools.failures import McpCallError, is_lost, reason
from gateway_plugins.mcp_tools.forwarding import FORWARDED
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.settings import McpServer

logger = logging.getLogger(__name__)

MAX_PRINCIPALS = 100
IDLE_SECONDS = 600.0
_PROGRESS_SECONDS = 0.25
_PROGRESS_CHARACTERS = 200


class Calls:
    """Makes the calls of one server.

    Args:
        name: The server's.
        settings: Whose session to use, and the limits.
        own: The gateway's own sessions.
        link_of: Makes the sessions of a principal.
    """

    def __init__(
        self, name: str, settings: McpServer, own: ConnectionSupervisor, link_of: Callable[[str], ConnectionSupervisor]
    ) -> None:
        self._name = name
        self._table = name.partition("/")[0]
        self._settings = settings
        self._own = own
        self._link_of = link_of
        self._of_principals: dict[str, ConnectionSupervisor] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def principals(self) -> int:
        """How many have a session of their own."""
        return len(self._of_principals)

    async def make(self, name: str, arguments: Mapping[str, Any], call_id: str, *, safe: bool) -> Any:
        """Call a tool for the run that is on.

        Args:
            name: The tool's, as the server calls it.
            arguments: What the model wrote.
            call_id: Whose progress it is.
            safe: Whether it may be called twice.

        Raises:
            McpCallError: It failed.
        """
        result = await self._result(name, arguments, _slowly(progress_reporter(call_id)), safe=safe)
        if result.is_error:
            raise McpCallError(results.as_text(result, self._settings.max_result))
        return results.as_output(result, self._settings.max_result)

    async def close(self) -> None:
        """Let the principals' sessions go."""
        await asyncio.gather(*(link.close() for link in self._of_principals.values()), *self._closing)

    async def _result(
        self, name: str, arguments: Mapping[str, Any], tell: ProgressFnT, *, safe: bool
    ) -> CallToolResult:
        link = self._link_of_run()
        for again in (False, True):
            exchange = RequestTrace(headers=FORWARDED.get().get(self._table, {}))
            session = await link.session()
            try:
                async with session.use() as client, self._within_time():
                    return await _with(exchange, client, name, arguments, self._settings.timeout, tell)
            except McpCallError:
                raise
            except Exception as error:
                if not session_lost(error, exchange):
                    raise self._failure(error, exchange) from None
                link.lost(session)
                # A server that knows no such session, or took no connection, has not begun with the call.
                if again or not (safe or exchange.unsent or exchange.status == 404):
                    raise self._failure(error, exchange) from None
        raise AssertionError("the second try returns or raises")

    @asynccontextmanager
    async def _within_time(self) -> AsyncIterator[None]:
        try:
            # The client's own limit begins when a call is written, which a server that reads nothing can prevent.
            async with asyncio.timeout(self._settings.timeout):
                yield
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> McpCallError:
        return McpCallError(f"The tool's server did not answer within {self._settings.timeout:g} seconds.")

    def _failure(self, error: Exception, exchange: RequestTrace) -> McpCallError:
        if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
            return self._too_slow()
        logger.info("a call of the MCP server %s failed: %s", self._name, reason(error, exchange))
        return McpCallError(f"The call failed at the tool's server: {reason(error, exchange)}.")

    def _link_of_run(self) -> ConnectionSupervisor:
        run = current_run()
        if self._settings.identity == "shared" or run is None:
            return self._own
        principal = run.principal.id
        link = self._of_principals.pop(principal, None) or self._link_of(principal)
        # The last one used stands last.
        self._of_principals[principal] = link
        self._forget_idle()
        return link

    def _forget_idle(self) -> None:
        now = time.monotonic()
        # All but the last one, which is wanted now.
        for principal, link in [*self._of_principals.items()][:-1]:
            if len(self._of_principals) <= MAX_PRINCIPALS and now - link.used < IDLE_SECONDS:
                break
            if link.busy:
                continue
            del self._of_principals[principal]
            closing = asyncio.create_task(link.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def session_lost(error: Exception, exchange: RequestTrace) -> bool:
    """Whether another session is needed. Some gateways answer 500 where a session is unknown."""
    if exchange.too_big:
        return False
    status = exchange.status or 0
    return exchange.failed or is_lost(error) or (exchange.in_session and (status == 404 or status >= 500))


async def _with(
    exchange: RequestTrace,
    client: Client,
    name: str,
    arguments: Mapping[str, Any],
    seconds: float,
    tell: ProgressFnT,
) -> CallToolResult:
    token = REQUEST_TRACE.set(exchange)
    try:
        return await client.call_tool(name, dict(arguments), seconds, tell)
    finally:
        REQUEST_TRACE.reset(token)


def _slowly(tell: Callable[[str], None]) -> ProgressFnT:
    """Passes on a server's notices of progress, a few a second."""
    last = 0.0

    async def tell_now(progress: float, total: float | None, message: str | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            amount = f"{progress:g} of {total:g}" if total else f"{progress:g}"
            tell(sanitize(message or amount, _PROGRESS_CHARACTERS))

    return tell_now
