"""Merges the commands of all plugins, so that several plugins can add subcommands to the same group.

It imports click, which only the command line needs.
"""

from collections import defaultdict
from collections.abc import Iterable
from copy import copy
from typing import NamedTuple

import click

from gateway_core.errors import PluginError


class Offer(NamedTuple):
    """A command that a plugin offers under a name."""

    plugin: str
    name: str
    command: click.Command


def merge_commands(offers: Iterable[Offer], *path: str) -> dict[str, click.Command]:
    """Unite the subcommands of groups with the same name.

    The group with a callback determines the options and the help of the merged group; only one group of a name can have
    a callback.

    Args:
        offers: Commands in the order in which they are listed.
        path: The names of the groups above them.

    Returns:
        The commands by name.

    Raises:
        PluginError: Two plugins define the same command.
    """
    by_name: dict[str, list[Offer]] = defaultdict(list)
    for offer in offers:
        by_name[offer.name].append(offer)
    return {name: _merge(same, (*path, name)) for name, same in by_name.items()}


def _merge(offers: list[Offer], path: tuple[str, ...]) -> click.Command:
    if len(offers) == 1:
        return offers[0].command
    groups = [(offer.plugin, offer.command) for offer in offers if isinstance(offer.command, click.Group)]
    base, *others = sorted(offers, key=lambda offer: offer.command.callback is None)
    if len(groups) < len(offers) or others[0].command.callback is not None:
        raise PluginError(
            f"two plugins define the command '{' '.join(path)}'",
            source=f"plugins {base.plugin} and {others[0].plugin}",
            hint=f"set enabled = false in [plugins.{base.plugin}] or in [plugins.{others[0].plugin}]",
        )
    # A copy, because a plugin can return the same group again.
    merged = copy(base.command)
    assert isinstance(merged, click.Group)
    subcommands = (Offer(plugin, name, command) for plugin, group in groups for name, command in group.commands.items())
    merged.commands = merge_commands(subcommands, *path)
    return merged
