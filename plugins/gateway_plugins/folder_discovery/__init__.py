"""Discovers agents in a folder: each file in it is a model, without any registration.

It finds and loads modules; the core resolves their exports.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from gateway_core import (
    AgentEntry,
    FoundAgent,
    Gateway,
    IsolatedModule,
    hookimpl,
    import_probe_command,
    load_isolated,
)
from gateway_plugins.folder_discovery.scan import Scanner


@frozen
class Settings:
    """`[plugins.folder_discovery]`."""

    path: Path = Path("./agents")
    """The drop-in folder; relative to the folder of `gateway.toml`."""


class FolderDiscovery:
    """The plugin `folder_discovery`."""

    Config = Settings
    agents_setting = "path"

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Switch to another folder."""
        self._root = config.path
        self._scanner = Scanner(config.path, self._gateway.report)

    @hookimpl
    def discover_agents(self) -> Iterable[AgentEntry]:
        """Return an entry for each agent in the folder."""
        root = self._root.resolve()
        return [_entry(found, digest, root) for found, digest in self._scanner.scan().items()]

    @hookimpl
    def watch_paths(self) -> Iterable[Path]:
        """Return the folder, even if it does not exist yet."""
        return [self._root]

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Return the folder, and whether it exists."""
        return {"path": str(self._root), "exists": self._root.is_dir()}


def _entry(found: FoundAgent, digest: str, root: Path) -> AgentEntry:
    loaded: list[IsolatedModule] = []

    def load() -> object:
        module = load_isolated(found.file, folder=found.folder, name=found.id, shared=root)
        loaded.append(module)
        return module.module

    def unload() -> None:
        for module in loaded:
            module.unload()

    probe = import_probe_command(found.file, found.folder, root)
    return AgentEntry(found.id, str(found.file), digest, load, unload, folder=found.folder, probe_command=probe)
