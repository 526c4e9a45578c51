"""Cleans text from a server for use in log lines, headers and operator views.

It removes control characters and limits the length; it does not filter content.
"""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]+")
MAX_CHARACTERS = 500


def sanitize(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return the text as one line without control characters, cut to `limit` characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
