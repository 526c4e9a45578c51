"""Records the outcome of the HTTP requests of one call, and adds the call's headers to them.

The MCP client exposes neither the status nor whether a request was sent, and retries depend on both. A context
variable carries the trace from the call to its requests. This module makes no retry decisions.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import httpx2
from attrs import Factory, define

from gateway_core import StderrTail
from gateway_plugins.mcp_tools.response_limits import LimitedBody

SESSION_HEADER = "mcp-session-id"
_DELETE_TIMEOUT_SECONDS = 2.0
_RESOURCE_METADATA = re.compile(r'resource_metadata="?([^",\s]+)')


@define
class RequestTrace:
    """The HTTP requests of one call, or of opening one session."""

    headers: Mapping[str, str] = Factory(dict)
    """Headers that are added to each request."""
    status: int | None = None
    """Status of the last response."""
    in_session: bool = False
    """Whether the last request carried a session id."""
    unsent: bool = False
    """Whether connecting failed, so that the server did not receive the request."""
    failed: bool = False
    """Whether the connection was lost."""
    exceeded: str = ""
    """The setting whose limit the response exceeded."""
    resource_metadata: str | None = None
    """URL of the server's protected resource metadata (RFC 9728)."""
    stderr: StderrTail | None = None
    """The standard error of the server process, for operators."""

    def record_unreadable(self, exceeded: str) -> None:
        """Record that a response could not be read to its end.

        Args:
            exceeded: The setting whose limit it exceeds; "" if the connection was lost.
        """
        self.exceeded = exceeded
        self.failed = not exceeded


REQUEST_TRACE: ContextVar[RequestTrace | None] = ContextVar("agent_gateway_mcp_request_trace", default=None)
"""The trace of the current call."""


@contextmanager
def traced(trace: RequestTrace) -> Iterator[None]:
    """Record the requests of the block in a trace."""
    token = REQUEST_TRACE.set(trace)
    try:
        yield
    finally:
        REQUEST_TRACE.reset(token)


class TracingTransport(httpx2.AsyncBaseTransport):
    """Sends requests and records their outcome in the current trace.

    Args:
        max_size: Maximum size of a response in bytes, decompressed. Event streams are exempt: their reader limits each
            event.
        max_values: Maximum number of JSON values of a response or event.
        inner: Transport that sends the requests.
    """

    def __init__(self, max_size: int, max_values: int, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._max_size = max_size
        self._max_values = max_values
        self._inner = inner or httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request with the headers of the current call."""
        trace = REQUEST_TRACE.get() or RequestTrace()
        for name, value in trace.headers.items():
            request.headers[name] = value
        if request.method == "DELETE":
            # It closes a session with a server that may be down, so a short timeout is enough.
            request.extensions = {**request.extensions, "timeout": httpx2.Timeout(_DELETE_TIMEOUT_SECONDS).as_dict()}
        trace.in_session = SESSION_HEADER in request.headers
        trace.status = None
        trace.unsent = trace.failed = False
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            trace.failed = True
            trace.unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            if request.method != "POST":
                raise
            # The MCP client would end the session, and with it the calls of other runs.
            return httpx2.Response(502, request=request)
        trace.status = response.status_code
        if response.status_code == 401:
            found = _RESOURCE_METADATA.search(response.headers.get("www-authenticate", ""))
            trace.resource_metadata = found[1] if found else None
        # Decompressed here, piece by piece: a small compressed response may stand for gigabytes.
        inner = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream, request=request)
        response.stream = LimitedBody(inner, self._max_size, self._max_values, trace.record_unreadable)
        response.headers.pop("content-encoding", None)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
