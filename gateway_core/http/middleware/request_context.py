"""The outermost ASGI middleware: gives each request an id, and drains a request body left unread by an early answer.

It knows no route and handles no error; `errors.py` does.
"""

import asyncio
import logging
import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway_core.observability.log_context import add_log_context
from gateway_core.observability.trace_context import set_trace_headers

logger = logging.getLogger(__name__)

HEADER = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
# An answer that is sent before the request was read leaves its rest in the connection; this much of it is read on.
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 10.0


def request_id_of(scope: Scope) -> str:
    """The id of the request, as it also stands in the answer's `x-request-id`."""
    request_id: str = scope["state"]["request_id"]
    return request_id


class RequestContextMiddleware:
    """The outermost ASGI middleware: gives a request its id, and reads on what an early answer left unread.

    `scope["state"]["headers"]`, a list of pairs of bytes, is what every answer to the request carries beside its own
    headers, an error's answer too; whoever handles the request adds to it before the answer starts.

    Args:
        app: What is inside.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        headers = [(HEADER, request_id.encode())]
        scope.setdefault("state", {}).update(request_id=request_id, headers=headers)
        trace = _trace(scope)
        add_log_context(request_id=request_id, trace_id=trace["traceparent"].split("-")[1] if trace else None)
        if trace:
            set_trace_headers(lambda: trace)
        exchange = _Exchange(receive, send, headers)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer: knows what was read and what was sent."""

    def __init__(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self._body_read = False
        self._start: Message | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
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
        """Send a whole answer to a request whose body nobody read.

        Hypercorn puts what it received, a client's leaving too, into a bounded queue, and waits for room in it while it
        sends: if nobody reads, the connection is never freed. And a connection that is closed under a client that
        still writes may take the answer with it, so the last message goes when the body is read.
        """
        drain = asyncio.ensure_future(self._drain())
        try:
            await self._send(start)
            await self._send({**body, "more_body": True})
        finally:
            await drain
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        """Read what is left of the body, within limits."""
        read = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._body_read and read < _DRAIN_BYTES:
                    read += len((await self.receive()).get("body", b""))
        except TimeoutError:
            logger.debug("a client did not end its body after an early answer")


def _trace(scope: Scope) -> dict[str, str]:
    """The trace that the client says the request belongs to (https://www.w3.org/TR/trace-context/#traceparent-header)."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in headers:
        if name == b"traceparent" and _TRACEPARENT.fullmatch(value):
            return {"traceparent": value.decode()}
    return {}


def _request_id(scope: Scope) -> str:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            return value.decode()
    return f"req_{uuid.uuid4().hex}"
