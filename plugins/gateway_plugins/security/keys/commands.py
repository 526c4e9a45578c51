"""The command `agent-gateway keys create`, which creates a key, and prints or adds the lines for `gateway.toml`."""

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from gateway_core import parse_pattern
from gateway_plugins.security.keys.key_ring import make_key, moment
from gateway_plugins.security.keys.key_tables import KEY_TEXT, key_table, new_key_text, save

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def keys_command(taken: Collection[str], file: Path) -> click.Command:
    """Create the command group `keys`.

    Args:
        taken: The names of the configured keys.
        file: The configuration file.
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
    @click.option("--save", "saved", is_flag=True, help="Add the lines to gateway.toml instead of printing them.")
    def create(
        name: str, admin: bool, principal: str | None, agents: tuple[str, ...], expires: str | None, saved: bool
    ) -> None:
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
        until = None if expires is None else _end(expires)
        table = key_table(name, key, principal=principal, admin=admin, agents=agents, expires=until)
        if saved:
            save(table, file)
            click.echo(new_key_text(key, file))
        else:
            click.echo(f"{KEY_TEXT.format(key.text)}Add this to gateway.toml:\n\n{table}", nl=False)

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
