"""The human-readable console format. The context and the fields of a line are shown at level DEBUG only."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any, TextIO
from urllib.parse import quote

from gateway_core import use_color
from gateway_plugins.request_log.access import LOGGER
from gateway_plugins.request_log.formats import Line, escaped, line_of

_RESET, _DIM, _RED, _GREEN, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_OWN = ("gateway_core.", "gateway_plugins.", "agent_gateway.")
_SHORT_ID = 8
# A path is shortened to this length before an agent's name is.
_PATH = 12
_NAME = 8


class ConsoleFormatter(logging.Formatter):
    """Console text: one line per record, and one screen line per request.

    Args:
        stream: The output; colored if it is a terminal.
        details: Whether to show the level, the logger and all fields of every line.
    """

    def __init__(self, stream: TextIO, *, details: bool = False) -> None:
        super().__init__()
        self._stream = stream
        self._details = details
        self._color = use_color(stream)

    def format(self, record: logging.LogRecord) -> str:
        line = line_of(record)
        moment = self._colored(_DIM, time.strftime("%H:%M:%S", time.localtime(record.created)))
        if record.name == LOGGER and not self._details:
            return f"{moment} {self._request({**line.context, **line.fields})}"
        color = _RED if record.levelno >= logging.ERROR else _YELLOW if record.levelno >= logging.WARNING else ""
        own = record.name.startswith(_OWN) and not self._details
        name = "" if own else f"{record.name}: "
        level = f"{record.levelname} " if self._details or record.levelno >= logging.WARNING else ""
        text = f"{level}{name}{record.getMessage()}"
        text = escaped(text)
        notes = escaped("".join(f" {name}={_value(value)}" for name, value in self._shown(record, line).items()))
        if record.levelno < logging.WARNING and not self._details and (width := self._width()) is not None:
            notes = _shortened(notes, max(0, width - len(f"00:00:00 {text}")))
        return f"{moment} {self._colored(color, text)}{self._colored(_DIM, notes)}"

    def _shown(self, record: logging.LogRecord, line: Line) -> Mapping[str, Any]:
        if self._details:
            return {**line.context, **line.fields, **line.given}
        if record.levelno < logging.WARNING:
            return {name: value for name, value in line.given.items() if value is not None}
        message = record.getMessage()
        context = {name: line.context[name] for name in ("agent_id", "request_id") if name in line.context}
        return {**{name: value for name, value in context.items() if value not in message}, **line.given}

    def _request(self, fields: Mapping[str, Any]) -> str:
        """A request: status, method, path, agent, duration, tokens, and the beginning of the request id."""
        status = fields["status"]
        path, agent = quote(fields["path"], safe="/:@!$&'()*+,;=~", errors="replace"), fields.get("agent_id", "")
        tokens = fields.get("input_tokens"), fields.get("output_tokens")
        counts = f"{tokens[0]}+{tokens[1]} tokens" if any(tokens) else ""
        request_id = escaped(short_id(fields.get("request_id", "")))
        end = " ".join(filter(None, [_duration(fields["seconds"]), counts, request_id]))
        if (width := self._width()) is not None:
            room = width - len(f"00:00:00 {status} {fields['method']:<4}   {end}")
            path = _shortened(path, max(_PATH, room - len(agent)))
            agent = _shortened(agent, max(_NAME, room - len(path)))
        color = _RED if status >= 500 else _YELLOW if status >= 400 else _GREEN
        parts = [self._colored(color, str(status)), f"{escaped(fields['method']):<4}", path, agent]
        return " ".join([*filter(None, parts), self._colored(_DIM, end)])

    def _width(self) -> int | None:
        """The columns of the terminal."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or None
        except (OSError, ValueError):  # no terminal, or no descriptor
            return None

    def _colored(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._color and color and text else text


def short_id(request_id: str) -> str:
    """Return the part of a request id that the console shows: the first digits of the gateway's, or a client's end."""
    own = request_id.removeprefix("req_")
    return own[:_SHORT_ID] if own != request_id else own[-_SHORT_ID:]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"[:length]


def _duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _value(value: Any) -> str:
    if isinstance(value, dict) and "stack" in value:  # an exception
        return f"{value['type']} at {value['stack'][-1] if value['stack'] else 'unknown location'}"
    text = str(value)
    return text if text and " " not in text else repr(text)
