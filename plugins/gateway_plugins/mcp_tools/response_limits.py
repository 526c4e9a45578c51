"""Limits the size and the number of JSON values of responses, before the MCP client parses them.

The client parses in the event loop, and the time depends on the number of values: 140,000 empty content blocks, which
are 4 MB, take almost 2 s.
"""

import re
from collections.abc import AsyncIterator, Callable

import httpx2

# Parts of a character sequence whose rest may be in the next chunk.
_INCOMPLETE = re.compile(rb"(?:\\|[\r\n]{1,4})\Z")
_LINE = re.compile(rb"\r\n|\n|\r")


class UnreadableError(httpx2.StreamError):
    """A response could not be read to its end. It fails one call, not the session."""


class LimitedBody(httpx2.AsyncByteStream):
    """The decompressed body of a response.

    Args:
        response: The response as it was received.
        max_size: Maximum size in bytes; does not limit event streams.
        max_values: Maximum number of JSON values of the body, or of each event.
        on_failure: Called if the body cannot be read to its end, with the setting whose limit it exceeds, or "" if the
            connection was lost.
    """

    def __init__(
        self, response: httpx2.Response, max_size: int, max_values: int, on_failure: Callable[[str], None]
    ) -> None:
        self._response = response
        self._max_size = max_size
        self._max_values = max_values
        self._on_failure = on_failure
        self._is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size, counter = 0, ValueCounter(events=self._is_stream)
        try:
            async for chunk in self._response.aiter_bytes():
                size += len(chunk)
                if size > self._max_size and not self._is_stream:
                    raise self._exceeded("max_message")
                if counter.feed(chunk) > self._max_values:
                    raise self._exceeded("max_values")
                yield chunk
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            if self._is_stream:
                raise
            self._on_failure("")
            raise UnreadableError("the connection was lost") from error

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()

    def _exceeded(self, setting: str) -> Exception:
        self._on_failure(setting)
        message = f"the response exceeds {setting}"
        # The client reconnects after other errors of a stream.
        return httpx2.SSEError(message) if self._is_stream else UnreadableError(message)


class ValueCounter:
    """Counts the values of JSON that arrives in chunks, by the characters that precede a value outside of strings.

    Args:
        events: Whether the chunks are those of an event stream. Each event is counted for itself.
    """

    def __init__(self, *, events: bool) -> None:
        self._events = events
        self._count = 0
        self._in_string = False
        self._rest = b""

    def feed(self, chunk: bytes) -> int:
        """Add a chunk, and return the largest number of values of a message in it."""
        text = (self._rest + chunk).replace(rb"\\", b"").replace(rb"\"", b"")
        self._rest = b""
        if found := _INCOMPLETE.search(text):
            text, self._rest = text[: found.start()], found[0]
        if not self._events:
            self._add(text)
            return self._count
        largest, before = 0, b""
        for number, line in enumerate(_LINE.split(text)):
            if number:
                self._in_string = False  # which a line of an event cannot continue
            if number > 1 and not before:
                self._count = 0
            self._add(line)
            before = line
            largest = max(largest, self._count)
        return largest

    def _add(self, text: bytes) -> None:
        parts = text.split(b'"')
        outside = b" ".join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        self._count += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
