"""The outermost ASGI middleware: assigns request ids and drains request bodies that an early response left unread.

Errors are handled in `http/middleware/errors.py`.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_core.http.sent_response import SentResponse
from gateway_core.observability.log_context import add_log_context
from gateway_core.observability.trace_context import set_trace_headers

logger = logging.getLogger(__name__)

HEADER = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
# A response sent before the body was read leaves the rest of the body in the connection; drain up to this much of it.
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 10.0


def request_id_of(scope: Scope) -> str:
    """Returns the id of the request, which is also the response's `x-request-id` header."""
    request_id: str = scope["state"]["request_id"]
    return request_id


def close_connection(scope: Scope) -> None:
    """Makes the server close the connection after the response. HTTP/2 has no such header."""
    if scope["http_version"].startswith("1"):
        scope["state"]["headers"].append((b"connection", b"close"))


class RequestContextMiddleware:
    """Assigns the request id, adds response headers, and drains unread request bodies.

    `scope["state"]["headers"]` is a list of header pairs (bytes) that is added to every response, including error
    responses. Handlers can append to it before the response starts.

    Args:
        app: The wrapped ASGI application.
        closing: Returns whether each connection ends with its current response, because the gateway is shutting down.
    """

    def __init__(self, app: ASGIApp, closing: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._closing = closing

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        request_id = _valid_header(scope, HEADER, _WELL_FORMED) or f"req_{uuid.uuid4().hex}"
        headers = [(HEADER, request_id.encode())]
        exchange = _Exchange(receive, send, headers)
        scope.setdefault("state", {}).update(request_id=request_id, headers=headers, response=exchange)
        trace = _valid_header(scope, b"traceparent", _TRACEPARENT)
        add_log_context(request_id=request_id, trace_id=trace.split("-")[1] if trace else None)
        if trace:
            set_trace_headers(lambda: {"traceparent": trace})
        if self._closing():
            close_connection(scope)
        return self._app(scope, exchange.receive, exchange.send)


class _Exchange(SentResponse):
    """Tracks the body of one request and its response."""

    def __init__(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        super().__init__()
        self._receive = receive
        self._send = send
        self._headers = headers
        self._body_read = False
        self._start: Message | None = None

    def receive(self) -> Awaitable[Message]:
        return self._receive() if self._body_read else self._receive_body()

    async def _receive_body(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
        self.record(message)
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            if not self._body_read:
                self._start = message
                return
        start, self._start = self._start, None
        if start is None:
            await self._send(message)
        elif self._body_read or message.get("more_body", False):
            await self._send(start)
            await self._send(message)
        else:
            await self._send_early(start, message)

    async def _send_early(self, start: Message, body: Message) -> None:
        """Sends a complete response to a request whose body was not read.

        Hypercorn puts received events, including the disconnect, into a bounded queue, and blocks when it is full: if
        nothing reads the queue, the connection is never freed. Closing a connection while the client is still sending
        can also discard the response, so the last message is sent after the body has been drained.
        """
        drain = asyncio.ensure_future(self._drain())
        try:
            await self._send(start)
            await self._send({**body, "more_body": True})
        finally:
            await drain
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        """Reads the rest of the body, up to a size and time limit."""
        read = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._body_read and read < _DRAIN_BYTES:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            logger.debug("timed out while draining a request body")


def _valid_header(scope: Scope, name: bytes, pattern: re.Pattern[bytes]) -> str | None:
    """Returns the first value of a request header that matches the pattern."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode() for key, value in headers if key == name and pattern.fullmatch(value)), None)
