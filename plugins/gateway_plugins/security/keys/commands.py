"""`agent-gateway keys create`: makes a key, shows it once, and prints what belongs into `gateway.toml`.

It writes no file: the operator's configuration is the operator's.
"""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from gateway_plugins.security.keys.key_ring import make_key, moment
from gateway_plugins.security.patterns import parse

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def keys_command(taken: Collection[str]) -> click.Command:
    """The command `keys`.

    Args:
        taken: Names of keys that are configured.
    """

    @click.group()
    def keys() -> None:
        """Keys that clients send; only their hashes are kept."""

    @keys.command()
    @click.argument("name")
    @click.option("--admin", is_flag=True, help="For the admin pages, and for nothing else.")
    @click.option("--principal", help="Whose key it is, where somebody has several (default: NAME).")
    @click.option("--agents", multiple=True, metavar="PATTERN", help="An agent that it may use; may be repeated.")
    @click.option("--expires", metavar="90d", help="How long it is good: 90d, 12h, or a date.")
    def create(name: str, admin: bool, principal: str | None, agents: tuple[str, ...], expires: str | None) -> None:
        """Make a key, show it this once, and print the lines for gateway.toml."""
        if name in taken:
            raise click.ClickException(
                f"there is a key '{name}' already; choose another name, and say whose it is: --principal {name}"
            )
        if not name.isprintable() or not name.strip():
            raise click.BadParameter("must have letters, and no control characters", param_hint="NAME")
        if admin and agents:
            raise click.UsageError("an admin key is for the admin pages, and uses no agents")
        for pattern in agents:
            try:
                parse(pattern)
            except ValueError as error:
                raise click.BadParameter(f"{pattern!r} is no pattern: {error}", param_hint="--agents") from None
        key = make_key()
        lines = [f"[plugins.security.keys.{_key(name)}]", f"id = {_text(key.id)}", f"hash = {_text(key.hash)}"]
        if principal is not None:
            lines.append(f"principal = {_text(principal)}")
        if admin:
            lines.append("admin = true")
        elif agents:
            lines.append(f"agents = [{', '.join(map(_text, agents))}]")
        else:
            lines.append('agents = ["**"]    # every agent; name fewer here')
        if expires is not None:
            lines.append(f"expires = {_text(_end(expires))}")
        click.echo(f"The key, shown this once:\n\n    {key.text}\n\nPut this into gateway.toml:\n")
        click.echo("\n".join(lines))

    return keys


def _end(expires: str) -> str:
    found = re.fullmatch(r"(\d{1,5})([mhd])", expires.strip())
    try:
        if found:
            end = datetime.now(UTC) + timedelta(**{_UNITS[found[2]]: int(found[1])})
        else:
            end = datetime.fromtimestamp(moment(expires.strip()), UTC)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(f"{expires!r} is no time such as 90d, and no date", param_hint="--expires") from None
    if end <= datetime.now(UTC):
        raise click.BadParameter("is over already", param_hint="--expires")
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: Any) -> str:
    # What is printable needs no other escapes in TOML.
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
