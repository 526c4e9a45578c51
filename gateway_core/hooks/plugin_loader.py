"""Entry points and configuration become plugin objects.

A plugin that is switched off is not imported. It must not call a hook; `hooks/dispatch.py` does.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from attrs import define, frozen

from gateway_core.config.converter import did_you_mean
from gateway_core.config.settings import Config, Table
from gateway_core.errors import GatewayError, PluginError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.specs import Gateway
from gateway_core.net.addresses import is_loopback

GROUP = "agent_gateway.plugins"


@define
class NoConfig:
    """The configuration of a plugin that takes none."""


@frozen
class PluginInfo:
    """A plugin as an operator sees it."""

    name: str
    enabled: bool
    source: str
    """The distribution that it comes from."""
    hooks: tuple[str, ...] = ()


@frozen
class LoadedPlugin:
    """A plugin that is on."""

    plugin: object
    settings: object
    """What it was constructed with."""


@frozen
class Plugins:
    """The plugins of one gateway."""

    hooks: Hooks
    loaded: Mapping[str, LoadedPlugin]
    """Those that are on, by name."""
    infos: tuple[PluginInfo, ...]
    """All plugins that are installed, in the order in which they are called; those without a table come last."""


def load_plugins(config: Config, gateway: Gateway, extra: Mapping[str, type] | None = None) -> Plugins:
    """Import, configure and register every plugin that the configuration switches on.

    Args:
        config: Its `plugins` tables decide which plugins there are, and in which order they are called.
        gateway: What the plugins' constructors get.
        extra: Plugin classes by name that are not installed as entry points; called after all others. For tests
            and for programs that embed the gateway.

    Raises:
        PluginError: A plugin cannot be imported or constructed, or is in the configuration but not installed.
        ConfigError: A plugin's table does not fit.
    """
    extra = extra or {}
    installed = _installed()
    tables = {**config.plugins, **{name: config.plugins.get(name, {}) for name in extra}}
    loaded: dict[str, LoadedPlugin] = {}
    for name, table in tables.items():
        if not is_enabled(name, table, config):
            continue
        cls = extra.get(name) or _import(name, installed)
        settings = settings_of(name, cls, table, config)
        loaded[name] = LoadedPlugin(_construct(name, cls, settings, gateway), settings)
    hooks = Hooks({name: one.plugin for name, one in loaded.items()})
    known = {**dict.fromkeys(tables), **dict.fromkeys(sorted(installed))}
    infos = (
        PluginInfo(name, name in loaded, _source(installed.get(name)), tuple(hooks.implemented_by(name)))
        for name in known
    )
    return Plugins(hooks, loaded, tuple(infos))


@frozen
class _Switch:
    enabled: bool = True


def is_enabled(name: str, table: Table, config: Config) -> bool:
    """Whether a plugin's table switches it on.

    Raises:
        ConfigError: `enabled` is neither true, false nor "loopback".
    """
    # What helps at the own desk, and need not be on where others can reach the gateway.
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
                f"two installed packages offer a plugin '{point.name}'",
                source=f"{_source(other)} and {_source(point)}",
                hint="uninstall one of them",
            )
    return points


def _import(name: str, installed: Mapping[str, EntryPoint]) -> type:
    point = installed.get(name)
    if point is None:
        raise PluginError(
            f"no plugin '{name}' is installed", source=f"[plugins.{name}]", hint=did_you_mean(name, installed)
        )
    try:
        cls: type = point.load()
    except Exception as error:
        raise PluginError(
            f"cannot be imported: {type(error).__name__}: {error}",
            source=f"plugin {name} ({point.value})",
            hint=f"mend it, or set enabled = false in [plugins.{name}]",
        ) from error
    return cls


def settings_of(name: str, cls: type, table: Table, config: Config) -> object:
    """A plugin's table as an instance of the class that it names `Config`.

    Raises:
        ConfigError: It does not fit.
        PluginError: The plugin fails to read it.
    """
    wanted: Any = getattr(cls, "Config", NoConfig)
    own = {key: value for key, value in table.items() if key != "enabled"}
    # A plugin whose table holds names of the user's choosing reads it by itself.
    from_table = getattr(wanted, "from_table", None)
    if from_table is not None:
        try:
            return from_table(own, lambda part, as_, *path: config.structure(part, as_, "plugins", name, *path))
        except GatewayError:
            raise
        except Exception as error:
            raise PluginError(f"cannot read its table: {type(error).__name__}", source=f"plugin {name}") from error
    return config.structure(own, wanted, "plugins", name)


def _construct(name: str, cls: type, settings: object, gateway: Gateway) -> object:
    try:
        return cls(gateway, settings)
    except GatewayError:
        raise
    except Exception as error:
        raise PluginError(f"cannot be started: {type(error).__name__}: {error}", source=f"plugin {name}") from error


def _source(point: EntryPoint | None) -> str:
    if point is None:
        return "given to build()"
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
