"""Loads plugins: imports their entry points, parses their settings and creates the plugin objects.

A disabled plugin is not imported. The module does not call hooks; `hooks/dispatch.py` does.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from attrs import define, frozen

from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config
from gateway_core.config.sources import Table
from gateway_core.config.values import did_you_mean
from gateway_core.errors import ConfigError, GatewayError, PluginError
from gateway_core.hooks.dispatch import Hooks, plugin_failure
from gateway_core.hooks.specs import Gateway
from gateway_core.net.addresses import is_loopback

GROUP = "agent_gateway.plugins"


@define
class NoConfig:
    """The settings class of a plugin without settings."""


@frozen
class PluginInfo:
    """Facts about an installed plugin, for operators."""

    name: str
    enabled: bool
    source: str
    """The distribution that provides it."""
    hooks: tuple[str, ...] = ()


@frozen
class LoadedPlugin:
    """An enabled plugin."""

    plugin: object
    settings: object
    """The settings that were passed to its constructor."""


@frozen
class Plugins:
    """The plugins of one gateway."""

    hooks: Hooks
    loaded: Mapping[str, LoadedPlugin]
    """The enabled plugins, by name."""
    infos: tuple[PluginInfo, ...]
    """All installed plugins, in the order of calling. Those without a table come last."""


def load_plugins(
    config: Config, gateway: Gateway, extra: Mapping[str, type] | None = None, problems: Problems | None = None
) -> Plugins:
    """Import, configure and register every enabled plugin.

    Args:
        config: The configuration. Its `plugins` tables define the plugins and their order.
        gateway: The gateway that is passed to the plugins' constructors.
        extra: Additional plugin classes by name, which are not installed as entry points. They are called after all
            others. For tests and for programs that embed the gateway.
        problems: Collects the errors instead of raising them; the plugins that have one are not loaded.

    Raises:
        PluginError: A plugin cannot be imported or constructed.
        ConfigError: A plugin is configured but not installed, or its table is invalid.
    """
    found = Problems() if problems is None else problems
    extra = extra or {}
    installed = _installed()
    tables = {**config.plugins, **{name: config.plugins.get(name, {}) for name in extra}}
    loaded: dict[str, LoadedPlugin] = {}
    for name, table in tables.items():
        with found.collected():
            if not is_enabled(name, table, config):
                continue
            cls = extra.get(name) or _import(name, installed, config)
            settings = settings_of(name, cls, table, config)
            loaded[name] = LoadedPlugin(_construct(name, cls, settings, config, gateway), settings)
    if problems is None:
        found.raise_found()
    hooks = Hooks({name: one.plugin for name, one in loaded.items()})
    known = {**dict.fromkeys(tables), **dict.fromkeys(sorted(installed))}
    infos = (
        PluginInfo(name, name in loaded, _source(installed.get(name)), tuple(hooks.implemented_by(name)))
        for name in known
    )
    return Plugins(hooks, loaded, tuple(infos))


def enabled_classes(config: Config) -> Iterator[tuple[str, type]]:
    """Yield the names and classes of the enabled plugins, without those that cannot be loaded: loading reports them."""
    installed = _installed()
    for name, table in config.plugins.items():
        with contextlib.suppress(GatewayError):
            if is_enabled(name, table, config):
                yield name, _import(name, installed, config)


@frozen
class _Switch:
    enabled: bool = True


def is_enabled(name: str, table: Table, config: Config) -> bool:
    """Whether a plugin is enabled by its table.

    Raises:
        ConfigError: `enabled` is neither true, false nor "loopback".
    """
    # For plugins that help during development and should be disabled when other hosts can reach the gateway.
    if table.get("enabled") == "loopback":
        return is_loopback(config.server.host)
    switch = {key: value for key, value in table.items() if key == "enabled"}
    return config.structure(switch, _Switch, "plugins", name).enabled


def _installed() -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise PluginError(
                f"two installed packages provide a plugin '{point.name}'",
                source=f"{_source(other)} and {_source(point)}",
                hint="uninstall one of them",
            )
    return points


def not_installed(name: str, installed: Collection[str], config: Config) -> ConfigError:
    """Return the error for the table of a plugin that is not installed."""
    error = ConfigError(
        f"the plugin '{name}' is not installed", source=f"[plugins.{name}]", hint=did_you_mean(name, installed)
    )
    config.locate(error)
    return error


def _import(name: str, installed: Mapping[str, EntryPoint], config: Config) -> type:
    point = installed.get(name)
    if point is None:
        raise not_installed(name, installed, config)
    try:
        cls: type = point.load()
    except Exception as error:
        raise plugin_failure("cannot be imported", f"{name} ({point.value})", error) from error
    return cls


def settings_of(name: str, cls: type, table: Table, config: Config) -> object:
    """Convert a plugin's table to an instance of the plugin's class `Config`.

    Raises:
        ConfigError: The table is invalid.
        PluginError: The plugin fails to parse the table.
    """
    wanted: Any = getattr(cls, "Config", NoConfig)
    own = {key: value for key, value in table.items() if key != "enabled"}
    # A plugin whose table has user-defined keys parses the table with `from_table`.
    from_table = getattr(wanted, "from_table", None)
    if from_table is not None:
        try:
            return from_table(own, lambda part, as_, *path: config.structure(part, as_, "plugins", name, *path))
        except GatewayError as error:
            config.locate(error)
            raise
        except Exception as error:
            # The text of the exception can contain a secret.
            raise plugin_failure(f"cannot parse its table: {type(error).__name__}", name) from error
    return config.structure(own, wanted, "plugins", name)


def _construct(name: str, cls: type, settings: object, config: Config, gateway: Gateway) -> object:
    try:
        return cls(gateway, settings)
    except GatewayError as error:
        config.locate(error)
        raise
    except (Exception, SystemExit) as error:
        raise plugin_failure("cannot be started", name, error) from error


def _source(point: EntryPoint | None) -> str:
    if point is None:
        return "passed to build()"
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
