"""Reads the sources of settings, `gateway.toml` and environment variables, and merges them into one table.

The module does not depend on any setting.
"""

import re
import tomllib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway_core.config.problems import Problems
from gateway_core.config.values import EnvText
from gateway_core.errors import ConfigError

Table = dict[str, Any]
Origins = dict[tuple[str, ...], str]

ENV_PREFIX = "GATEWAY__"

MAX_DEPTH = 100
"""Maximum nesting of tables and lists, which protects recursive code."""

_SYNTAX_HINTS = (
    ("twice|[Dd]uplicate|Cannot overwrite|Cannot mutate", "the key or table exists twice; merge or remove one"),
    ("Invalid value", "write text in quotes, and true and false in lower case"),
    ("Expected '='", "write key = value, and the name of a table in brackets"),
    ("Expected '\\]'|Invalid initial character", "write a table as [name], and a name with other characters in quotes"),
    ("Unclosed array", "close the list with ], and separate its items by commas"),
    ("nclosed inline table|inline table", "write { key = value, other = value } on one line"),
    ("string|Illegal character|Unescaped|escape", "close the quotes; write a backslash as \\\\, or use single quotes"),
    ("Expected newline", "write one setting on a line, and text in quotes"),
    ("statement", "write key = value, or a table as [name]"),
)


def read_toml(path: Path, named: Path) -> tuple[str, Table]:
    """Read a TOML file, and return its text and its tables.

    Args:
        path: The file.
        named: Its name for errors.

    Raises:
        ConfigError: It cannot be read, is not valid TOML or is nested too deeply.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError("file not found", source=str(named), hint="`agent-gateway init` creates one") from None
    except OSError as error:
        hint = "name a file that the gateway's user can read"
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(named), hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", source=str(named), hint="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, text, str(named)) from error
    except RecursionError:
        raise _too_deep(str(named)) from None
    if deeper_than(MAX_DEPTH, table):
        raise _too_deep(str(named))
    return text, table


def in_file(message: str, file: str, line: int | None, place: str, hint: str | None) -> ConfigError:
    """Return an error with a place in a file."""
    error = ConfigError(message, source=f"{file}: {place}" if place else file, hint=hint)
    error.file, error.line = file, line
    return error


def _syntax_error(error: tomllib.TOMLDecodeError, text: str, file: str) -> ConfigError:
    at = re.search(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
    reason = str(error)[: at.start()] if at else str(error)
    lines = text.splitlines()
    line = int(at[1]) if at and at[1] else max(len(lines), 1)
    # The value can be a secret.
    key = re.match(r"\s*([^=#]{1,100}?)\s*(=|$)", lines[line - 1]) if line <= len(lines) else None
    hint = next((hint for pattern, hint in _SYNTAX_HINTS if re.search(pattern, reason)), None)
    return in_file(f"is not valid TOML: {reason}", file, line, key[1] if key else "", hint)


def deeper_than(levels: int, table: Table) -> bool:
    """Whether a table or JSON object contains more than this number of nested levels."""
    values: list[Any] = [table]
    for _ in range(levels):
        inner = (value.values() if isinstance(value, dict) else value for value in values)
        values = [each for some in inner for each in some if isinstance(each, dict | list)]
    return bool(values)


def _too_deep(source: str) -> ConfigError:
    return ConfigError(f"is nested more than {MAX_DEPTH} levels deep", source=source, hint="reduce the nesting")


def merge(into: Table, new: Table, origins: Origins, origin: str, *path: str) -> None:
    """Merge settings over others, table by table, and note their origin."""
    for key, value in new.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict) and set(value) not in ({"env"}, {"file"}):
            merge(into[key], value, origins, origin, *here)
        else:
            into[key] = value
            for place in (here, *_paths_below(value, here)):
                origins[place] = origin
        origins.setdefault(here, origin)


def _paths_below(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths_below(inner, (*path, key))


def merge_environment(
    tables: Table, environ: Mapping[str, str], origins: Origins, aliases: Mapping[str, str], problems: Problems
) -> None:
    """Merge the variables `GATEWAY__TABLE__KEY` over the settings.

    Args:
        tables: The settings.
        environ: All variables.
        origins: The origins of the settings.
        aliases: Short names of variables.
        problems: Collects the variables that name no setting.
    """
    for name in sorted(environ):
        long_form = aliases.get(name, name)
        if long_form.startswith(ENV_PREFIX):
            with problems.collected():
                _merge_variable(tables, name, long_form.removeprefix(ENV_PREFIX).split("__"), environ[name], origins)


def _merge_variable(tables: Table, name: str, parts: list[str], value: str, origins: Origins) -> None:
    table, path = tables, []
    *parents, last = parts
    source = f"environment variable {name[:100]}"
    if len(parents) >= MAX_DEPTH:
        raise _too_deep(source)
    if not parents or not all(parts):
        hint = "write GATEWAY__TABLE__KEY, such as GATEWAY__SERVER__PORT"
        raise ConfigError("names no setting", source=source, hint=hint)
    for part in parents:
        key = _existing_key(table, part)
        path.append(key)
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            hint = f"write {ENV_PREFIX}{'__'.join(path).upper()}"
            raise ConfigError(f"'{key}' is a setting, not a table", source=source, hint=hint)
        origins.setdefault(tuple(path), f"environment variable {name}")
    key = _existing_key(table, last)
    if isinstance(table.get(key), dict) and set(table[key]) not in ({"env"}, {"file"}):
        raise ConfigError(f"'{key}' is a table, not a setting", source=source, hint=f"write {name}__KEY")
    table[key] = EnvText(value)
    origins[(*path, key)] = f"environment variable {name}"


def _existing_key(table: Table, part: str) -> str:
    return next((key for key in table if key.casefold() == part.casefold()), part.lower())


def misnamed_variables(environ: Mapping[str, str], tables: Container[str]) -> Iterator[ConfigError]:
    """Yield a warning for each variable whose name is almost that of a setting, and which has no effect."""
    for name in sorted(environ):
        found = re.fullmatch(r"(?:AGENT_)?GATEWAY_{1,2}([A-Z]+)_{1,2}(\w+)", name, re.IGNORECASE)
        if found and found[1].lower() in tables and not name.startswith(ENV_PREFIX):
            wanted = f"{ENV_PREFIX}{found[1]}__{found[2]}".upper()
            yield ConfigError("has no effect", source=f"environment variable {name}", hint=f"did you mean {wanted}?")
