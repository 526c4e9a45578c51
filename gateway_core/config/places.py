"""Finds the place of a setting: the file and its line, an environment variable or the command line."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from gateway_core.errors import ConfigError, GatewayError, errors_of

Path = tuple[str, ...]
"""The keys that lead to a setting, such as `("plugins", "security", "rules")`."""

_TABLE = re.compile(r"\[(?P<table>[^\]]+)\](?: (?P<key>\S+))?")


class Places:
    """The places of all settings.

    Args:
        origins: The name of the file or the variable of each setting.
        tables: The merged settings.
        file: The name of `gateway.toml`, as given.
        text: Its content.
    """

    def __init__(self, origins: Mapping[Path, str], tables: Mapping[str, Any], file: str, text: str) -> None:
        self._origins = origins
        self._tables = tables
        self._file = file
        self._text = text

    def locate(self, error: GatewayError) -> None:
        """Add the file and the line, or the variable, to an error whose source is a table and a key.

        Args:
            error: An error with a source such as `[plugins.metrics] listen`; others remain as they are.
        """
        for each in errors_of(error):
            found = _TABLE.match(each.source or "")
            if not isinstance(each, ConfigError) or each.file is not None or found is None:
                continue
            keys = found["key"].split(".") if found["key"] else []
            path = _longest([*self._split(found["table"]), *keys], self._tables)
            origin = next((self._origins[p] for p in _prefixes(path) if p in self._origins), None)
            if origin is None or origin == "default.toml":
                continue
            each.source = f"{origin}: {each.source}"
            if origin == self._file:
                each.file, each.line = self._file, line_of(self._text, path)

    def _split(self, name: str) -> Path:
        """Split the name of a table at its dots, except at those within a key."""
        path: list[str] = []
        tables: Any = self._tables
        parts = name.split(".")
        while parts:
            sizes = range(len(parts), 0, -1)
            words = {size: ".".join(parts[:size]).strip("'\"") for size in sizes}
            fits = (size for size in sizes if isinstance(tables, Mapping) and words[size] in tables)
            size = next(fits, 1)
            path.append(words[size])
            tables = tables.get(words[size]) if isinstance(tables, Mapping) else None
            parts = parts[size:]
        return tuple(path)


def line_of(text: str, path: Path) -> int | None:
    """Return the line of a setting in a TOML document, counted from 1; `None` if it does not contain the setting.

    The parser reports no positions. But every beginning of a document that ends between two settings is a document, so
    a search finds the first line with which the setting appears.
    """
    lines = text.splitlines(keepends=True)

    def whole(count: int, least: int) -> tuple[int, Mapping[str, Any]]:
        # Back to the start of a value that spans lines.
        for end in range(count, least, -1):
            try:
                return end, tomllib.loads("".join(lines[:end]))
            except tomllib.TOMLDecodeError:
                continue
        return least, {}

    while path and not _has(whole(len(lines), 0)[1], path):
        path = path[:-1]
    if not path:
        return None
    before, after = 0, len(lines)
    while after - before > 1:
        middle = (before + after) // 2
        end, tables = whole(middle, before)
        if end > before and _has(tables, path):
            after = end
        else:
            # No setting ends between `end` and `middle`.
            before = middle
    start = whole(after - 1, 0)[0]
    while lines[start].strip() == "" or lines[start].lstrip().startswith("#"):
        start += 1
    return start + 1


def _has(tables: Mapping[str, Any], path: Path) -> bool:
    return len(_longest(path, tables)) == len(path)


def _longest(path: "Path | list[str]", tables: Mapping[str, Any]) -> Path:
    """Return the part of a path that exists."""
    found: list[str] = []
    here: Any = tables
    for key in path:
        if not isinstance(here, Mapping) or key not in here:
            break
        found.append(key)
        here = here[key]
    return tuple(found)


def _prefixes(path: Path) -> Iterator[Path]:
    for length in range(len(path), 0, -1):
        yield path[:length]
