"""Log formatters: JSON objects or console text, always one line per record.

Control characters are escaped, so that untrusted text in a message, such as a request path, cannot inject log lines or
terminal commands.
"""

import logging
import re
import time
from typing import Any, Literal, TextIO

import orjson

# Line breaks, including Unicode ones, and terminal control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def formatter(format: Literal["auto", "json", "console"], stream: TextIO) -> logging.Formatter:
    """Returns the formatter for a stream."""
    if format == "json" or (format == "auto" and not stream.isatty()):
        return JsonFormatter()
    return ConsoleFormatter()


class JsonFormatter(logging.Formatter):
    """JSON: `{"time", "level", "logger", "message", …context}`; the time is in ISO 8601, UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = orjson.dumps(
            {
                "time": _iso(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **_context(record),
            },
            default=str,
        ).decode(errors="replace")
        # JSON does not escape some of these characters, and some readers treat them as line breaks.
        return escaped(line)


class ConsoleFormatter(logging.Formatter):
    """Console text: `time LEVEL logger: message key=value …`."""

    def format(self, record: logging.LogRecord) -> str:
        context = "".join(f" {name}={_value(value)}" for name, value in _context(record).items())
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        return escaped(f"{moment} {record.levelname:<7} {record.name}: {record.getMessage()}{context}")


def escaped(text: str) -> str:
    """Escapes control characters as `\\u…`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _iso(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _context(record: logging.LogRecord) -> dict[str, Any]:
    context: dict[str, Any] = getattr(record, "context", {})
    return context


def _value(value: Any) -> str:
    if isinstance(value, dict):  # an exception
        return f"{value['type']} at {value['stack'][-1] if value['stack'] else 'unknown location'}"
    text = str(value)
    return text if text and " " not in text else repr(text)
