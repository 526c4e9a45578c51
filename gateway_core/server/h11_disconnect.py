"""Detects the disconnect of HTTP/1.1 clients that use pipelining.

Hypercorn stops reading from a connection while a pipelined request is waiting, and therefore does not detect that the
client has disconnected. The run would continue until a write fails. This module polls the connection during the wait.
"""

import asyncio
from typing import Any

import hypercorn.protocol
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol

POLL_SECONDS = 0.1


def detect_disconnects() -> None:
    """Install the detection for all future connections of this process. Idempotent."""
    hypercorn.protocol.H11Protocol = _Protocol  # type: ignore[attr-defined]


class _Protocol(H11Protocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Hypercorn's object for the connection, which has the stream reader.
        connection = getattr(self.send, "__self__", None)
        self.can_read = _CanRead(self, getattr(connection, "reader", None))


class _CanRead:
    """Replaces Hypercorn's event, which is cleared while a pipelined request waits.

    `wait` also ends when the client disconnects. Other connections need no event, which would take 1 KiB of each.
    """

    def __init__(self, protocol: H11Protocol, reader: asyncio.StreamReader | None) -> None:
        self._protocol = protocol
        self._reader = reader
        self._event: asyncio.Event | None = None

    async def clear(self) -> None:
        self._event = asyncio.Event()

    async def set(self) -> None:
        if self._event is not None:
            self._event.set()

    def is_set(self) -> bool:
        return self._event is None or self._event.is_set()

    async def wait(self) -> None:
        """Wait until the next request may be read.

        Raises:
            ConnectionResetError: The client has disconnected.
        """
        while self._event is not None and not self._event.is_set():
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._event.wait()
            except TimeoutError:
                pass
            # `at_eof()` is false while the buffer contains unread data, so check the private attributes.
            if getattr(self._reader, "_eof", False) or getattr(self._reader, "_exception", None) is not None:
                await self._protocol.handle(Closed())
                raise ConnectionResetError("the client has disconnected")
