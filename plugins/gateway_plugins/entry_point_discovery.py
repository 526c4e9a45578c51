"""Discovers agents in installed packages: every entry point of the group `agent_gateway.agents` is a model.

The entry point's name is the model's id; its value refers to an `Agent`, a factory, a workflow function or a module.
A package that cannot be imported does not affect other agents.
"""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gateway_core import AgentEntry, Gateway, hookimpl

GROUP = "agent_gateway.agents"


class EntryPointDiscovery:
    """The plugin `entry_point_discovery`."""

    skip_for = ("paths",)

    def __init__(self, gateway: Gateway, config: object) -> None:
        pass

    @hookimpl
    def discover_agents(self) -> Iterable[AgentEntry]:
        """Return an agent entry for each entry point, sorted by name."""
        return [_entry(point) for point in _points()]

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the installed entry points."""
        return {"group": GROUP, "entry_points": {point.name: _source(point) for point in _points()}}


def _points() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda point: point.name.casefold())


def _entry(point: EntryPoint) -> AgentEntry:
    # The content of an installed package changes only with its version.
    digest = hashlib.sha256(f"{point.value} {_source(point)}".encode()).hexdigest()
    return AgentEntry(point.name, f"{_source(point)} ({point.value})", digest, point.load, module=point.module)


def _source(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"
