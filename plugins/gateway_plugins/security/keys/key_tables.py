"""Writes the table of a new key, and adds it to the configuration file.

The file is only extended: everything in it stays as the operator wrote it.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

from gateway_core import ConfigError
from gateway_plugins.security.keys.key_ring import NewKey

KEY_TEXT = "The key, which is not shown again:\n\n    {}\n\n"

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key_table(
    name: str,
    key: NewKey,
    *,
    principal: str | None = None,
    admin: bool = False,
    agents: Sequence[str] = (),
    expires: str | None = None,
) -> str:
    """Return the table `[plugins.security.keys.NAME]` as text.

    Args:
        name: The name of the table.
        key: The key; only its hash is written.
        principal: The owner, if it is not the name.
        admin: Whether it is an admin key.
        agents: The allow list; empty for all agents.
        expires: An ISO 8601 time.
    """
    quoted = name if _BARE.fullmatch(name) else _text(name)
    lines = [f"[plugins.security.keys.{quoted}]", f"id = {_text(key.id)}", f"hash = {_text(key.hash)}"]
    if principal is not None:
        lines.append(f"principal = {_text(principal)}")
    if admin:
        lines.append("admin = true")
    elif agents:
        lines.append(f"agents = [{', '.join(map(_text, agents))}]")
    else:
        lines.append('agents = ["**"]    # all agents; list fewer to restrict the key')
    if expires is not None:
        lines.append(f"expires = {_text(expires)}")
    return "\n".join(lines) + "\n"


def save(table: str, file: Path) -> None:
    """Append a table to the configuration file, which is created if it does not exist.

    Raises:
        ConfigError: The file cannot be written, or cannot be extended by this table.
    """
    hint = "create a key with `agent-gateway keys create NAME`, and add the printed lines yourself"
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        separator = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        tomllib.loads(f"{before}{separator}{table}")
        # Not replaced by a new file: a container may have mounted the file itself.
        with file.open("a", encoding="utf-8") as end:
            end.write(f"{separator}{table}")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", source=str(file), hint=hint) from error
    except ValueError as error:
        raise ConfigError(f"cannot add the key: {error}", source=str(file), hint=hint) from error


def new_key_text(key: NewKey, file: Path) -> str:
    """Return the message about a key that was added to the configuration file."""
    return f"{KEY_TEXT.format(key.text)}Its hash was added to {file}."


def _text(value: str) -> str:
    # A JSON string of printable text is a TOML string.
    return json.dumps(value, ensure_ascii=False)
