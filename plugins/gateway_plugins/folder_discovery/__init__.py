"""Discovers agents in a folder: each file in it is a model, without any registration.

It finds and loads modules; the core resolves their exports.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from gateway_core import (
    SUSPICIOUS,
    AgentEntry,
    ConfigError,
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
        self._missing = False
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Switch to another folder.

        Raises:
            ConfigError: It is not a folder.
        """
        if config.path.exists() and not config.path.is_dir():
            raise ConfigError(
                f"{config.path} is not a folder", source="[plugins.folder_discovery] path", hint="name a folder"
            )
        self._root = config.path
        self._scanner = Scanner(config.path, self._gateway.report)

    @hookimpl
    def discover_agents(self) -> Iterable[AgentEntry]:
        """Return an entry for each agent in the folder."""
        root = self._root.resolve()
        self._report_missing()
        return [_entry(found, digest, root) for found, digest in self._scanner.scan().items()]

    def _report_missing(self) -> None:
        # The default folder is optional.
        missing = self._root.name != Settings().path.name and not self._root.exists()
        if missing and not self._missing:
            self._gateway.report(
                ConfigError(
                    f"the folder {self._root} does not exist",
                    source="[plugins.folder_discovery] path",
                    hint="create it, or name another folder; relative paths are relative to the folder of gateway.toml",
                    code=SUSPICIOUS,
                )
            )
        self._missing = missing

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
