"""The JSON format, and what every format needs: the fields of a record, and the escaping of control characters.

Control characters are escaped, so that untrusted text in a message, such as a request path, cannot inject log lines or
terminal commands.
"""

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson
from attrs import frozen

# Line breaks, including Unicode ones, and terminal control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


_ATTRIBUTE = "agent_gateway_line"


@frozen
class Line:
    """The fields of a log record."""

    context: Mapping[str, Any] = {}
    """The log context: request, principal, agent."""
    fields: Mapping[str, Any] = {}
    """The fields of one of the gateway's messages, whose text has the important ones."""
    given: Mapping[str, Any] = {}
    """Fields that other code added, such as an agent's, and the exception."""


def set_line(record: logging.LogRecord, line: Line) -> None:
    """Store the fields of a record for its formatter."""
    vars(record)[_ATTRIBUTE] = line


def line_of(record: logging.LogRecord) -> Line:
    """Return the fields of a record."""
    line: Line = vars(record).get(_ATTRIBUTE) or Line()
    return line


class JsonFormatter(logging.Formatter):
    """JSON: `{"time", "level", "logger", "message", …context}`; the time is in ISO 8601, UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line = line_of(record)
        text = orjson.dumps(
            {
                "time": _iso(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **line.context,
                **line.fields,
                **line.given,
            },
            default=str,
        ).decode(errors="replace")
        # JSON does not escape some of these characters, and some readers treat them as line breaks.
        return escaped(text)


def escaped(text: str) -> str:
    """Escapes control characters as `\\u…`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _iso(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
