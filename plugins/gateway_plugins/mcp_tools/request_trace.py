"""What is known of the HTTP requests of one call: what was sent with them, and what became of them.

The protocol's client tells a caller neither a status nor whether a request was sent at all, and both decide whether a
call may be made again. A context variable carries it from the call to the request. It decides nothing.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar

import httpx2
from attrs import Factory, define

SESSION_HEADER = "mcp-session-id"
_LEAVE_SECONDS = 2.0
_RESOURCE_METADATA = re.compile(r'resource_metadata="?([^",\s]+)')


@define
class RequestTrace:
    """The requests of one call, or of one connection's beginning."""

    headers: Mapping[str, str] = Factory(dict)
    """Sent with each of them."""
    status: int | None = None
    """Of the last answer."""
    in_session: bool = False
    """Whether the last request named a session."""
    unsent: bool = False
    """Whether no connection was made, so that the server knows nothing of the call."""
    failed: bool = False
    """Whether the connection was lost."""
    too_big: bool = False
    resource_metadata: str | None = None
    """Where a server says how to get a credential (RFC 9728)."""


REQUEST_TRACE: ContextVar[RequestTrace | None] = ContextVar("agent_gateway_mcp_exchange", default=None)
"""Set while a call is made."""


class UnreadableError(httpx2.StreamError):
    """An answer cannot be read to its end: an error of one call's, and not of the session."""


class WatchedTransport(httpx2.AsyncBaseTransport):
    """Sends requests, and notes what becomes of them.

    Args:
        max_size: Bytes of one answer; of a stream the reader limits each event by itself.
        inner: What sends them.
    """

    def __init__(self, max_size: int, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._max_size = max_size
        self._inner = inner or httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request with the call's headers."""
        exchange = REQUEST_TRACE.get() or RequestTrace()
        for name, value in exchange.headers.items():
            request.headers[name] = value
        if request.method == "DELETE":
            # A farewell to a server that may be dead: nobody waits for it.
            request.extensions = {**request.extensions, "timeout": httpx2.Timeout(_LEAVE_SECONDS).as_dict()}
        exchange.in_session = SESSION_HEADER in request.headers
        exchange.status = None
        exchange.unsent = exchange.failed = False
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.TransportError as error:
            exchange.failed = True
            exchange.unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            if request.method != "POST":
                raise
            # The protocol's client would end the session, and with it the calls of all others.
            return httpx2.Response(502, request=request)
        exchange.status = response.status_code
        if response.status_code == 401:
            found = _RESOURCE_METADATA.search(response.headers.get("www-authenticate", ""))
            exchange.resource_metadata = found[1] if found else None
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Limited(response.stream, self._max_size, exchange)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _Limited(httpx2.AsyncByteStream):
    def __init__(self, inner: object, max_size: int, exchange: RequestTrace) -> None:
        assert isinstance(inner, httpx2.AsyncByteStream)
        self._inner = inner
        self._max_size = max_size
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for chunk in self._inner:
                size += len(chunk)
                if size > self._max_size:
                    self._exchange.too_big = True
                    raise UnreadableError("the answer is too big")
                yield chunk
        except httpx2.TransportError as error:
            self._exchange.failed = True
            raise UnreadableError("the connection was lost") from error

    async def aclose(self) -> None:
        await self._inner.aclose()
