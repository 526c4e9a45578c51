"""A client that sends its next request before the last one is answered, and leaves, is noticed all the same.

Hypercorn stops reading from a connection when a further request waits on it, and so does not see it end: a run would go
on for nobody, until something is written to it. This looks at the connection while it waits.
"""

import asyncio
from typing import Any

import hypercorn.protocol
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol

POLL_SECONDS = 0.1


def detect_disconnects() -> None:
    """For all connections of this process from now on; harmless to do twice."""
    hypercorn.protocol.H11Protocol = _Protocol  # type: ignore[attr-defined]


class _Protocol(H11Protocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # The server's own object for this connection; it has the stream that is read.
        connection = getattr(self.send, "__self__", None)
        self.can_read = _CanRead(self.can_read, self, getattr(connection, "reader", None))


class _CanRead:
    """Hypercorn's event, of which waiting also ends when the client has left."""

    def __init__(self, event: Any, protocol: H11Protocol, reader: asyncio.StreamReader | None) -> None:
        self._event = event
        self._protocol = protocol
        self._reader = reader

    async def clear(self) -> None:
        await self._event.clear()

    async def set(self) -> None:
        await self._event.set()

    def is_set(self) -> bool:
        return bool(self._event.is_set())

    async def wait(self) -> None:
        """Wait until the next request may be read.

        Raises:
            ConnectionResetError: There is nobody any more to answer it for.
        """
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._event.wait()
                return
            except TimeoutError:
                pass
            # What has arrived may still stand in its buffer, so `at_eof` does not tell.
            if getattr(self._reader, "_eof", False) or getattr(self._reader, "_exception", None) is not None:
                await self._protocol.handle(Closed())
                raise ConnectionResetError("the client has left")
