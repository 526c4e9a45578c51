"""Text of a server's as it may stand in a log line, a header or a list for operators: data, and nothing else.

It judges no text.
"""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
MAX_WORDS = 500


def sanitize(text: str, limit: int = MAX_WORDS) -> str:
    """One line without control characters, cut to `limit` characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
