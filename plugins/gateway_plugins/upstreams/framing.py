"""Splits the body of an upstream's answer into its events, regardless of its content type.

Events are server-sent ones (https://html.spec.whatwg.org/multipage/server-sent-events.html), lines of JSON, or one JSON
value, such as a whole answer or an error. It works on bytes and does no input or output.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from gateway_core import has_more_values

MAX_LINE_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 100
"""Nesting of JSON. Values below are read; deeper ones exhaust the stack of the libraries that read them later."""

MAX_VALUES = 250_000
"""Maximum number of JSON values in one event, or in a whole answer."""

_CHEAP_BYTES = 4096
"""Size of JSON that can be parsed again for each line."""

_DONE = b"[DONE]"
_FIELD = re.compile(rb"\s*(?:([A-Za-z][\w-]*):[ ]?|(?:data|event|id|retry)$)")
_BETWEEN = re.compile(r"[\s,]*")


class DialectError(Exception):
    """An answer that cannot be read, or that its server reports as failed. The text is safe to show to a client.

    Args:
        message: The text.
        reported: The error object of the server; not safe to show.
    """

    def __init__(self, message: str, reported: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.reported = reported


class Event(NamedTuple):
    """An event.

    Args:
        name: The value of its `event:` line; empty without one.
        data: Its data: JSON, or `[DONE]`.
    """

    name: str
    data: bytes


class EventReader:
    """Reads events from the pieces of one body."""

    def __init__(self) -> None:
        self.is_stream = False
        """Whether the body contains server-sent events."""
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._began = False
        self._data: list[bytes] = []
        self._name = ""
        self._raw: list[bytes] = []
        self._raw_size = self._parse_at = 0

    @property
    def held(self) -> int:
        """Number of bytes whose event is not complete, which the next piece may complete."""
        return self._rest_size + self._raw_size

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that a piece completes.

        Raises:
            DialectError: A line of a stream is too long.
        """
        if piece.startswith(b"data: ") and piece.endswith(b"\n\n") and not (self._rest or self._data or self._raw):
            data = piece[6:-2]
            if b"\n" not in data and b"\r" not in data and not self._name:
                # The usual piece: one event.
                self.is_stream = self._began = True
                yield Event("", data)
                return
        if self._rest and self._rest[-1].endswith(b"\r"):
            # A CRLF may be split between two pieces.
            piece = self._rest.pop() + piece
        if b"\n" not in piece and b"\r" not in piece[:-1]:
            self._keep(piece)
            return
        text = b"".join([*self._rest, piece])
        if b"\r" in text:
            last = b"\r" if text.endswith(b"\r") else b""
            text = text.removesuffix(last).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last
        lines = text.split(b"\n")
        self._rest, self._rest_size = [], 0
        self._keep(lines.pop())
        for line in lines:
            if line.startswith(b"data: ") and not self._data:  # the usual lines
                self.is_stream = self._began = True
                self._data.append(line[6:])
            elif not line and len(self._data) == 1:
                yield Event(self._name, self._data.pop())
                self._name = ""
            else:
                yield from self._line(line)

    def end(self) -> Iterator[Event]:
        """Yield the events that the end of the body completes. Many servers omit the last empty line.

        Raises:
            DialectError: The body, or its end, is neither an event nor JSON.
        """
        yield from self._line(b"".join(self._rest).rstrip(b"\r"))
        yield from self._line(b"")
        yield from self._take_raw()

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        if self._rest_size > MAX_LINE_BYTES and not self._rest[0].lstrip(codecs.BOM_UTF8 + b" \t").startswith(b"{"):
            # An object is a whole answer, whose size has its own limit.
            raise DialectError(f"the upstream sent a line longer than {MAX_LINE_BYTES} bytes")

    def _line(self, line: bytes) -> Iterator[Event]:
        if not self._began:
            self._began, line = True, line.removeprefix(codecs.BOM_UTF8)
        if line.startswith(b"data:"):
            yield from self._add(line[6:] if line[5:6] == b" " else line[5:])
        elif not line or line.isspace():
            if self._data:
                yield self._event()
            self._name = ""
        elif line.startswith(b":"):
            return
        elif not self._raw and (field := _FIELD.match(line)) and (name := (field[1] or b"").lower()) != b"error":
            value = line[field.end() :]
            if name == b"data":
                yield from self._add(value)
            elif name == b"event":
                self._name = value.strip().decode(errors="replace")
        else:
            if not self._raw and line.lstrip()[:1] not in (b"{", b"["):
                raise DialectError("the upstream returned text that is neither JSON nor an event stream")
            self._raw.append(line)
            self._raw_size += len(line) + 1
            ends = line.startswith((b"{", b"}")) if self._raw[0].lstrip()[:1] == b"{" else line.rstrip().endswith(b"]")
            # Each attempt reads all lines: short values are found at once, and the attempts at long ones are few.
            if ends and self._raw_size >= self._parse_at:
                if _is_json(b"\n".join(self._raw)):
                    yield from self._take_raw()
                elif self._raw_size > _CHEAP_BYTES:
                    self._parse_at = 2 * self._raw_size

    def _add(self, line: bytes) -> Iterator[Event]:
        self.is_stream = True
        if len(self._data) == 1 and (line.startswith(_DONE) or _is_json(self._data[0])):
            yield self._event()  # servers that omit the empty line between two events
        self._data.append(line)

    def _event(self) -> Event:
        data, self._data = self._data, []
        return Event(self._name, data[0] if len(data) == 1 else b"\n".join(data))

    def _take_raw(self) -> Iterator[Event]:
        raw, self._raw = b"\n".join(self._raw), []
        self._raw_size = self._parse_at = 0
        if raw:
            yield Event(self._name, raw)


def read_body(content: bytes) -> tuple[list[Event], bool]:
    """Read a whole body.

    Returns:
        Its events up to `[DONE]`, and whether they are server-sent ones.

    Raises:
        DialectError: The body is malformed.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    if text.lstrip()[:1] in (b"{", b"["):
        return [Event("", text)], False
    reader = EventReader()
    events: list[Event] = []
    for event in chain(reader.feed(content), reader.end()):
        if event.data.startswith(_DONE):
            break
        events.append(event)
    return events, reader.is_stream


def values(data: bytes) -> Iterator[Any]:
    """Yield the JSON values in the data of an event: one as a rule, but some servers send several at once.

    `[DONE]` is a value, too.

    Raises:
        DialectError: The data is malformed, or nested too deeply.
    """
    if data.startswith(_DONE):
        yield _DONE.decode()
        return
    check_values(data)
    try:
        text = data.decode().strip()
        many = text.count("{") + text.count("[") > MAX_DEPTH
        position = 0
        while position < len(text):
            if text.startswith(_DONE.decode(), position):
                yield _DONE.decode()
                return
            value, position = _DECODER.raw_decode(text, position)
            if many:
                _check_depth(value)
            yield value
            position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError) as error:
        raise DialectError("the upstream returned malformed JSON") from error


_DECODER = json.JSONDecoder()


def check_values(data: bytes) -> None:
    """Check the number of values in JSON, before it is parsed.

    Raises:
        DialectError: There are too many.
    """
    if has_more_values(MAX_VALUES, data):
        raise DialectError(f"the upstream sent more than {MAX_VALUES} JSON values at once")


def _is_json(data: bytes) -> bool:
    check_values(data)
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        containers = [each for each in level if isinstance(each, dict | list) and each]
        if not containers:
            return
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    raise DialectError(f"the upstream returned JSON nested more than {MAX_DEPTH} levels deep")
