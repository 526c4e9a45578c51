"""Findings about secrets that are written as plain text anywhere in the settings.

A finding names the setting and never contains the secret.
"""

import re
from collections.abc import Iterator
from typing import Any

from gateway_core import AuditContext, Finding, Severity

_SECRET_NAME = re.compile(r"(?:.*[_-])?(?:key|token|secret|password|authorization|credentials?|cookie)", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?:agw_[A-Za-z0-9]{8}_|sk-|Bearer )[\w.-]{16,}")
# A shorter value is a placeholder, such as the key "ollama" that local model servers require.
_MIN_LENGTH = 12


def plain_text_findings(context: AuditContext) -> Iterator[Finding]:
    """One finding for each setting with a plain-text secret."""
    for path in _plain_text(context.tables):
        yield Finding(
            Severity.HIGH,
            "secret_plain_text",
            f"[{'.'.join(path[:-1])}] {path[-1]}",
            "contains a secret in plain text",
            'write { env = "NAME" } or { file = "path" } instead, and replace the secret',
        )


def _plain_text(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        if set(value) in ({"env"}, {"file"}):
            return
        for key, inner in value.items():
            yield from _plain_text(inner, *path, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _plain_text(inner, *path)
    # A value from the environment is of a subclass of `str`.
    elif type(value) is str and value and path:
        long_enough = len(value) >= _MIN_LENGTH or "password" in path[-1].casefold()
        if (long_enough and _SECRET_NAME.fullmatch(path[-1])) or _SECRET_TEXT.search(value):
            yield path
