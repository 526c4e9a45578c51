"""Calls the tools of one server: chooses the session, applies the timeout, and retries after a lost session.

A call is retried only if that is safe. Authorization is not checked here.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import REQUEST_TIMEOUT, CallToolResult

from gateway_core import current_run, progress_reporter
from gateway_plugins.mcp_tools import results
from gateway_plugins.mcp_tools.connection_supervisor import ConnectionSupervisor
from gateway_plugins.mcp_tools.error_mapping import McpCallError, is_lost, reason
from gateway_plugins.mcp_tools.header_forwarding import FORWARDED
from gateway_plugins.mcp_tools.request_trace import RequestTrace, traced
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.settings import McpServer

logger = logging.getLogger(__name__)

MAX_PRINCIPALS = 100
IDLE_SECONDS = 600.0
_PROGRESS_SECONDS = 0.25
_PROGRESS_CHARACTERS = 200


class Calls:
    """Calls the tools of one server.

    Args:
        name: Name of the server.
        settings: Settings of the server: the session identity and the limits.
        shared: The connection that all principals share.
        make_supervisor: Creates the connection of a principal.
    """

    def __init__(
        self,
        name: str,
        settings: McpServer,
        shared: ConnectionSupervisor,
        make_supervisor: Callable[[str], ConnectionSupervisor],
    ) -> None:
        self._name = name
        self._table = name.partition("/")[0]
        self._settings = settings
        self._shared = shared
        self._make_supervisor = make_supervisor
        self._supervisors: dict[str, ConnectionSupervisor] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def principals(self) -> int:
        """Number of principals with their own session."""
        return len(self._supervisors)

    async def make(self, name: str, arguments: Mapping[str, Any], call_id: str, *, safe: bool) -> Any:
        """Call a tool for the current run.

        Args:
            name: Name of the tool on the server.
            arguments: Arguments from the model.
            call_id: Id of the tool call that progress is reported for.
            safe: Whether the call may be retried after the server may have received it.

        Raises:
            McpCallError: The call failed.
        """
        result = await self._result(name, arguments, _throttled(progress_reporter(call_id)), safe=safe)
        if result.is_error:
            raise McpCallError(results.as_text(result, self._settings.max_result))
        return results.as_output(result, self._settings.max_result)

    async def close(self) -> None:
        """Close the principals' sessions."""
        await asyncio.gather(*(supervisor.close() for supervisor in self._supervisors.values()), *self._closing)

    async def _result(
        self, name: str, arguments: Mapping[str, Any], on_progress: ProgressFnT, *, safe: bool
    ) -> CallToolResult:
        supervisor = self._supervisor_for_run()
        for again in (False, True):
            trace = RequestTrace(headers=FORWARDED.get().get(self._table, {}))
            session = await supervisor.session()
            try:
                # The client's own timeout starts once the call is written, and a server that does not read can block
                # that.
                async with session.use() as client, asyncio.timeout(self._settings.timeout):
                    with traced(trace):
                        return await client.call_tool(name, dict(arguments), self._settings.timeout, on_progress)
            except TimeoutError:
                raise self._timed_out() from None
            except Exception as error:
                if not session_lost(error, trace):
                    raise self._failure(error, trace) from None
                supervisor.lost(session)
                # A server that rejects the session id (404), or accepts no connection, has not started the call.
                if again or not (safe or trace.unsent or trace.status == 404):
                    raise self._failure(error, trace) from None
        raise AssertionError("the second try returns or raises")

    def _timed_out(self) -> McpCallError:
        return McpCallError(f"The tool's server did not respond within {self._settings.timeout:g} seconds.")

    def _failure(self, error: Exception, trace: RequestTrace) -> McpCallError:
        if isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT:
            return self._timed_out()
        logger.info("tool call to MCP server %s failed: %s", self._name, reason(error, trace))
        return McpCallError(f"The tool call failed: {reason(error, trace)}.")

    def _supervisor_for_run(self) -> ConnectionSupervisor:
        run = current_run()
        if self._settings.identity == "shared" or run is None:
            return self._shared
        principal = run.principal.id
        supervisor = self._supervisors.pop(principal, None) or self._make_supervisor(principal)
        # The most recently used one comes last.
        self._supervisors[principal] = supervisor
        self._forget_idle()
        return supervisor

    def _forget_idle(self) -> None:
        now = time.monotonic()
        # All but the last one, which the current call needs.
        for principal, supervisor in [*self._supervisors.items()][:-1]:
            if len(self._supervisors) <= MAX_PRINCIPALS and now - supervisor.used < IDLE_SECONDS:
                break
            if supervisor.busy:
                continue
            del self._supervisors[principal]
            closing = asyncio.create_task(supervisor.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def session_lost(error: Exception, trace: RequestTrace) -> bool:
    """Whether a new session is needed. Some gateways return 500 for an unknown session."""
    if trace.exceeded:
        return False
    status = trace.status or 0
    return trace.failed or is_lost(error) or (trace.in_session and (status == 404 or status >= 500))


def _throttled(report: Callable[[str], None]) -> ProgressFnT:
    """Report a server's progress notifications, a few per second at most."""
    last = 0.0

    async def report_throttled(progress: float, total: float | None, message: str | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            amount = f"{progress:g} of {total:g}" if total else f"{progress:g}"
            report(sanitize(message or amount, _PROGRESS_CHARACTERS))

    return report_throttled
