"""Records the outcome of the HTTP requests of one call, and adds the call's headers to them.

The MCP client exposes neither the status nor whether a request was sent, and retries depend on both. A context
variable carries the trace from the call to its requests. This module makes no retry decisions.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import httpx2
from attrs import Factory, define

from gateway_core import StderrTail

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
    too_big: bool = False
    resource_metadata: str | None = None
    """URL of the server's protected resource metadata (RFC 9728)."""
    stderr: StderrTail | None = None
    """The standard error of the server process, for operators."""


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


class UnreadableError(httpx2.StreamError):
    """A response could not be read to its end. It fails one call, not the session."""


class TracingTransport(httpx2.AsyncBaseTransport):
    """Sends requests and records their outcome in the current trace.

    Args:
        max_size: Maximum size of a response in bytes, decompressed. Event streams are exempt: their reader limits each
            event.
        inner: Transport that sends the requests.
    """

    def __init__(self, max_size: int, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._max_size = max_size
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
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            # Decompressed here, piece by piece: a small compressed response may stand for gigabytes.
            inner = httpx2.Response(
                response.status_code, headers=response.headers, stream=response.stream, request=request
            )
            response.stream = _Limited(inner, self._max_size, trace)
            response.headers.pop("content-encoding", None)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _Limited(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.Response, max_size: int, trace: RequestTrace) -> None:
        self._inner = inner
        self._max_size = max_size
        self._trace = trace

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._inner.aiter_bytes():
                size += len(chunk)
                if size > self._max_size:
                    self._trace.too_big = True
                    raise UnreadableError("the response is too large")
                yield chunk
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            self._trace.failed = True
            raise UnreadableError("the connection was lost") from error

    async def aclose(self) -> None:
        await self._inner.aclose()
