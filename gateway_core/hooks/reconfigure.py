"""Reloads the configuration at run time, and lists the changed settings that require a restart.

A reload is atomic: if the file is invalid, or a plugin rejects its settings, the previous configuration stays active.
The module does not interpret settings; it passes the new configuration to the code that uses it.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from attrs import asdict, evolve, frozen

from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config
from gateway_core.config.sources import Table
from gateway_core.daemon_thread import DaemonThread
from gateway_core.errors import GatewayError, PluginError
from gateway_core.hooks.plugin_loader import Plugins, is_enabled, not_installed, settings_of

logger = logging.getLogger(__name__)

# Settings that are used at startup only: sockets, folders, middleware, settings of the SDK.
_AT_START = {
    "server": None,
    "state": None,
    "http": ("cors_origins",),
    "runs": ("sdk_tracing",),
}


@frozen
class _Change:
    """A change of a plugin's settings."""

    name: str
    plugin: Any
    old: object
    new: object

    @property
    def possible(self) -> bool:
        return callable(getattr(self.plugin, "reconfigure", None))


class Reconfigurer:
    """Holds the active configuration and the result of the last reload.

    Args:
        config: The configuration at startup.
        plugins: The plugins that were loaded with it.
        apply: Called with each new configuration.
        report: Called with the error of a rejected configuration.
    """

    def __init__(
        self, config: Config, plugins: Plugins, apply: Callable[[Config], None], report: Callable[[GatewayError], None]
    ) -> None:
        self.error: GatewayError | None = None
        """The reason why the current file was rejected, or `None` if it is active."""
        self.restart: tuple[str, ...] = ()
        """Changed tables and keys that require a restart, such as `[server] port`."""
        self.read_at = time.time()
        """The time at which the active configuration was read, in seconds since the epoch."""
        self._started = config
        self._active = config
        self._plugins = plugins
        self._settings = {name: loaded.settings for name, loaded in plugins.loaded.items()}
        self._apply_config = apply
        self._report = report
        self._lock = asyncio.Lock()

    async def read_again(self) -> None:
        """Reload the file and apply the settings that can change at run time. Errors are reported, not raised.

        Does nothing if the file, the files of secrets and the environment are unchanged since the last successful call.
        """
        async with self._lock:
            if self.error is None and self._active.sources() == self._active.read_from:
                return
            read = self._active
            try:
                read = new = await DaemonThread(self._active.reread).result()
                changes = self._changes(new)
                await self._apply([change for change in changes if change.possible])
            except GatewayError as error:
                read.locate(error)
                self._reject(error)
                return
            self._settings |= {change.name: change.new for change in changes if change.possible}
            _log_changes(self._active, new)
            waited, self.restart = self.restart, (*self._waiting_tables(new), *self._waiting_plugins(new, changes))
            if self.restart and self.restart != waited:
                logger.warning("restart the gateway to apply %s", ", ".join(self.restart))
            self._active = evolve(new, server=self._started.server, state=self._started.state)
            self._apply_config(self._active)
            self.error, self.read_at = None, time.time()

    def needs_restart(self, plugin: str) -> bool:
        """Whether a plugin has changed settings that require a restart."""
        return any(waiting.startswith(f"[plugins.{plugin}]") for waiting in self.restart)

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON for operators."""
        error = self.error
        details = {"message": error.message, "source": error.source, "hint": error.hint} if error is not None else None
        return {
            "file": str(self._started.file),
            "read_at": self.read_at,
            "error": details,
            "restart": self.restart,
        }

    def _changes(self, new: Config) -> list[_Change]:
        """Return the loaded plugins whose settings changed. Every table is validated, even if it requires a restart.

        Raises:
            ConfigError: A table is invalid, or a plugin is configured but not installed.
        """
        known = {info.name for info in self._plugins.infos}
        problems, changes = Problems(), []
        for name, table in new.plugins.items():
            with problems.collected():
                if name not in known and is_enabled(name, table, new):
                    raise not_installed(name, known, new)
        for name, loaded in self._plugins.loaded.items():
            table = new.plugins.get(name, {})
            with problems.collected():
                if not is_enabled(name, table, new):
                    continue
                settings = settings_of(name, type(loaded.plugin), table, new)
                if settings != self._settings[name]:
                    changes.append(_Change(name, loaded.plugin, self._settings[name], settings))
        problems.raise_found()
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
                    logger.warning("plugin %s: rollback of the settings failed: %s", change.name, error)
            raise

    def _reject(self, error: GatewayError) -> None:
        # Each reload reads the file again, but the same error is reported only once.
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


def _log_changes(before: Config, after: Config) -> None:
    """Log the tables that differ, without their values, which may be secret."""
    old, new = dict(_tables(before.tables)), dict(_tables(after.tables))
    changed = [f"[{name}]" for name in {**old, **new} if old.get(name) != new.get(name)]
    # The tables are equal after an edit of a comment, or of a file with a secret.
    if changed or before.read_from.files != after.read_from.files:
        tables = f": {', '.join(changed)}" if changed else ""
        logger.info("reloaded the configuration%s", tables, extra={"fields": {"tables": changed}})


def _tables(tables: Table) -> Iterator[tuple[str, object]]:
    for name, table in tables.items():
        if name in ("plugins", "agents") and isinstance(table, dict):
            yield from ((f"{name}.{inner}", settings) for inner, settings in table.items())
        else:
            yield name, table


async def _reconfigure(plugin: Any, settings: object, name: str) -> None:
    try:
        result = plugin.reconfigure(settings)
        if inspect.isawaitable(result):
            await result
    except GatewayError:
        raise
    except Exception as error:
        raise PluginError(f"failed in reconfigure: {type(error).__name__}", source=f"plugin {name}") from error
