"""Reads the configuration again while the gateway runs: what can change takes effect, and what cannot is named.

All of a file takes effect or nothing of it: one that is wrong, or that a plugin refuses, leaves everything as it was.
It knows no setting's meaning; whoever uses one is given the new configuration.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any

from attrs import asdict, evolve, frozen

from gateway_core.config.settings import Config
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import GatewayError, PluginError
from gateway_core.hooks.plugin_loader import Plugins, is_enabled, settings_of

logger = logging.getLogger(__name__)

# What was used up at start: sockets, folders, middleware, the SDK's own settings.
_AT_START = {
    "server": None,
    "state": None,
    "http": ("cors_origins",),
    "runs": ("sdk_tracing",),
}


@frozen
class _Change:
    """A plugin whose settings are not what they were."""

    name: str
    plugin: Any
    old: object
    new: object

    @property
    def possible(self) -> bool:
        return callable(getattr(self.plugin, "reconfigure", None))


class Reconfigurer:
    """The configuration in force, and what became of the last attempt to change it.

    Args:
        config: What the gateway started with.
        plugins: Those that were loaded with it.
        take: Given each new configuration, at once.
        report: Told of one that is refused.
    """

    def __init__(
        self, config: Config, plugins: Plugins, take: Callable[[Config], None], report: Callable[[GatewayError], None]
    ) -> None:
        self.error: GatewayError | None = None
        """Why what the file says now is not in force."""
        self.restart: tuple[str, ...] = ()
        """What the file says, and only a restart brings into force: tables and keys, such as `[server] port`."""
        self.read_at = time.time()
        """Seconds since the epoch: when what is in force was read."""
        self._started = config
        self._in_force = config
        self._plugins = plugins
        self._settings = {name: loaded.settings for name, loaded in plugins.loaded.items()}
        self._take = take
        self._report = report
        self._lock = asyncio.Lock()

    async def read_again(self) -> None:
        """Read the file, and bring into force what can be. Never raises for what is wrong with it: it is reported."""
        async with self._lock:
            try:
                new = await DaemonThread(self._in_force.again).result()
                changes = self._changes(new)
                await self._apply([change for change in changes if change.possible])
            except GatewayError as error:
                self._refuse(error)
                return
            self._settings |= {change.name: change.new for change in changes if change.possible}
            self._in_force = evolve(new, server=self._started.server, state=self._started.state)
            self._take(self._in_force)
            self.restart = (*self._waiting_tables(new), *self._waiting_plugins(new, changes))
            self.error, self.read_at = None, time.time()

    def needs_restart(self, plugin: str) -> bool:
        """Whether a plugin's table says what only a restart brings into force."""
        return any(waiting.startswith(f"[plugins.{plugin}]") for waiting in self.restart)

    def describe(self) -> dict[str, Any]:
        """For operators, as JSON."""
        error = self.error
        told = {"message": error.message, "source": error.source, "hint": error.hint} if error is not None else None
        return {
            "file": str(self._started.file),
            "read_at": self.read_at,
            "error": told,
            "restart": self.restart,
        }

    def _changes(self, new: Config) -> list[_Change]:
        """The loaded plugins whose settings are others now. Every table is checked, also of those that cannot change.

        Raises:
            ConfigError: A table does not fit.
            PluginError: A plugin is in the file, and not installed.
        """
        known = {info.name for info in self._plugins.infos}
        for name, table in new.plugins.items():
            if name not in known and is_enabled(name, table, new):
                raise PluginError(f"no plugin '{name}' is installed", source=f"[plugins.{name}]")
        changes = []
        for name, loaded in self._plugins.loaded.items():
            table = new.plugins.get(name, {})
            if not is_enabled(name, table, new):
                continue
            settings = settings_of(name, type(loaded.plugin), table, new)
            if settings != self._settings[name]:
                changes.append(_Change(name, loaded.plugin, self._settings[name], settings))
        return changes

    async def _apply(self, changes: list[_Change]) -> None:
        done: list[_Change] = []
        try:
            for change in changes:
                await _reconfigure(change.plugin, change.new, change.name)
                done.append(change)
        except GatewayError:
            for change in reversed(done):
                try:
                    await _reconfigure(change.plugin, change.old, change.name)
                except GatewayError as error:
                    logger.warning("%s did not take its old settings back: %s", change.name, error)
            raise

    def _refuse(self, error: GatewayError) -> None:
        # Each reload reads the file again; what is wrong with it is told once.
        if self.error is None or str(self.error) != str(error):
            self._report(error)
        self.error = error

    def _waiting_tables(self, new: Config) -> list[str]:
        waiting = []
        for table, keys in _AT_START.items():
            before, after = asdict(getattr(self._started, table)), asdict(getattr(new, table))
            waiting += [f"[{table}] {key}" for key in keys or before if before[key] != after[key]]
        return waiting

    def _waiting_plugins(self, new: Config, changes: list[_Change]) -> list[str]:
        waiting = [f"[plugins.{change.name}]" for change in changes if not change.possible]
        tables = {**{name: {} for name in self._plugins.loaded}, **new.plugins}
        for name, table in tables.items():
            if is_enabled(name, table, new) is not (name in self._plugins.loaded):
                waiting.append(f"[plugins.{name}] enabled")
        return waiting


async def _reconfigure(plugin: Any, settings: object, name: str) -> None:
    try:
        result = plugin.reconfigure(settings)
        if inspect.isawaitable(result):
            await result
    except GatewayError:
        raise
    except Exception as error:
        raise PluginError(f"fails in reconfigure: {type(error).__name__}", source=f"plugin {name}") from error
