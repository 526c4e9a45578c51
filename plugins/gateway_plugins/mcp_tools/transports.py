"""Opens a session with an MCP server over the transport that its settings select.

It neither reconnects nor retries; `connection_supervisor.py` does.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from string import punctuation
from typing import Any
from urllib.parse import quote

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.session import MessageHandlerFnT
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation

import gateway_core
from gateway_core import StderrTail
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, TracingTransport
from gateway_plugins.mcp_tools.settings import McpServer

logger = logging.getLogger(__name__)

_SSE_READ_SECONDS = 300.0
_UNESCAPED = punctuation.replace("%", "")


@asynccontextmanager
async def open_session(
    name: str,
    settings: McpServer,
    auth: httpx2.Auth | None,
    principal: str | None,
    on_message: MessageHandlerFnT,
    on_end: Callable[[], None],
) -> AsyncIterator[Client]:
    """Connect to a server, and disconnect in the same task when the block exits.

    Args:
        name: Name of the server, for log lines.
        settings: Settings of the server.
        auth: Authentication for the requests.
        principal: Id of the principal that owns the session; `None` for a shared session.
        on_message: Called with each notification from the server.
        on_end: Called when the server closes the session, if the transport can detect it.
    """
    async with AsyncExitStack() as held:
        if settings.kind == "stdio":
            errors = _stderr(name, logged=settings.stderr == "log")
            held.push_async_callback(asyncio.to_thread, errors.close)
            transport: Any = stdio_client(_parameters(settings), errlog=errors.file)
        else:
            transport = await _by_http(settings, auth, principal, held)
        client = Client(
            _end_reporting(transport, on_end),
            mode=settings.protocol,
            cache=None,  # the plugin's own tool cache outlives a session
            message_handler=on_message,
            client_info=Implementation(name="agent-gateway", version=gateway_core.__version__),
            read_timeout_seconds=settings.connect_timeout,
        )
        yield await held.enter_async_context(client)


def _stderr(name: str, *, logged: bool) -> StderrTail:
    """Return the standard error of a server process, whose last lines describe a failure of the session."""

    def log(line: str) -> None:
        logger.debug("MCP server %s: %s", name, line)

    errors = StderrTail(log) if logged else StderrTail()
    if (trace := REQUEST_TRACE.get()) is not None:
        trace.stderr = errors
    return errors


def identity_headers(settings: McpServer, principal: str | None) -> dict[str, str]:
    """Return the headers that identify the principal of a session."""
    # Invalid characters are percent-encoded, so that different principals never get the same value.
    encoded = quote(principal if principal is not None else "agent-gateway", safe=_UNESCAPED)
    return {name: value.replace("{principal}", encoded) for name, value in settings.identity_headers.items()}


def http_client(settings: McpServer, auth: httpx2.Auth | None, principal: str | None) -> httpx2.AsyncClient:
    """Create the HTTP client of one session."""
    headers = httpx2.Headers({name: secret.reveal() for name, secret in settings.headers.items()})
    headers.update(identity_headers(settings, principal))
    if settings.token is not None:
        headers["authorization"] = f"Bearer {settings.token.reveal()}"
    return httpx2.AsyncClient(
        transport=TracingTransport(settings.max_message, settings.max_values),
        headers=headers,
        auth=auth,
        # Calls have their own timeout; an event stream may be silent between two changes.
        timeout=httpx2.Timeout(settings.connect_timeout, read=max(settings.timeout, _SSE_READ_SECONDS)),
        trust_env=False,
    )


async def _by_http(settings: McpServer, auth: httpx2.Auth | None, principal: str | None, held: AsyncExitStack) -> Any:
    assert settings.url is not None
    client = http_client(settings, auth, principal)
    if settings.kind == "sse":
        return sse_client(settings.url, httpx_client_factory=lambda *_, **__: client)
    await held.enter_async_context(client)
    return streamable_http_client(settings.url, http_client=client, max_sse_event_size=settings.max_message)


def _parameters(settings: McpServer) -> StdioServerParameters:
    # A command such as `python` resolves to the gateway's environment first, even if that is not activated.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    env: Mapping[str, str] = {name: secret.reveal() for name, secret in settings.env.items()}
    program, *arguments = settings.command
    return StdioServerParameters(command=program, args=arguments, env={"PATH": path, **env}, cwd=settings.cwd)


@asynccontextmanager
async def _end_reporting(transport: Any, on_end: Callable[[], None]) -> AsyncIterator[tuple[Any, Any]]:
    """A transport that reports when the server closes it. The client alone would notice only at its next call."""
    async with transport as (read, write):
        yield _EndReportingStream(read, on_end), write


class _EndReportingStream:
    def __init__(self, inner: Any, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> "_EndReportingStream":
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except BaseException:
            self._on_end()
            raise

    async def __aenter__(self) -> "_EndReportingStream":
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)
