"""The command `agent-gateway keys create`, which creates a key and prints the lines for `gateway.toml`.

It does not write the configuration file; the operator adds the lines.
"""

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import click

from gateway_core import parse_pattern
from gateway_plugins.security.keys.key_ring import make_key, moment

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def keys_command(taken: Collection[str]) -> click.Command:
    """Create the command group `keys`.

    Args:
        taken: The names of the configured keys.
    """

    @click.group()
    def keys() -> None:
        """Manage API keys. The gateway stores only their hashes."""

    @keys.command()
    @click.argument("name")
    @click.option("--admin", is_flag=True, help="Create an admin key, for the admin pages only.")
    @click.option("--principal", help="Owner of the key; several keys can have the same owner (default: NAME).")
    @click.option("--agents", multiple=True, metavar="PATTERN", help="Agents that the key may use; can be repeated.")
    @click.option("--expires", metavar="90d", help="Lifetime, such as 90d or 12h, or an expiry date.")
    def create(name: str, admin: bool, principal: str | None, agents: tuple[str, ...], expires: str | None) -> None:
        """Create a key and print it with the lines for gateway.toml. The key is not shown again."""
        if name in taken:
            raise click.ClickException(
                f"a key named '{name}' already exists; choose another name, with --principal {name} for the same owner"
            )
        if not name.isprintable() or not name.strip():
            raise click.BadParameter("must not be blank or contain control characters", param_hint="NAME")
        if admin and agents:
            raise click.UsageError("--admin and --agents cannot be combined: admin keys may only use the admin pages")
        for pattern in agents:
            try:
                parse_pattern(pattern)
            except ValueError as error:
                raise click.BadParameter(f"invalid pattern {pattern!r}: {error}", param_hint="--agents") from None
        key = make_key()
        lines = [f"[plugins.security.keys.{_key(name)}]", f"id = {_text(key.id)}", f"hash = {_text(key.hash)}"]
        if principal is not None:
            lines.append(f"principal = {_text(principal)}")
        if admin:
            lines.append("admin = true")
        elif agents:
            lines.append(f"agents = [{', '.join(map(_text, agents))}]")
        else:
            lines.append('agents = ["**"]    # all agents; list fewer to restrict the key')
        if expires is not None:
            lines.append(f"expires = {_text(_end(expires))}")
        click.echo(f"The key, which is not shown again:\n\n    {key.text}\n\nAdd this to gateway.toml:\n")
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
        raise click.BadParameter(
            f"{expires!r} is neither a duration such as 90d nor a date", param_hint="--expires"
        ) from None
    if end <= datetime.now(UTC):
        raise click.BadParameter("is in the past", param_hint="--expires")
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    # A JSON string of printable text is a TOML string.
    return json.dumps(value, ensure_ascii=False)
