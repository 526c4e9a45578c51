"""One optional file, `gateway.toml`, the environment and the command line become typed, checked settings.

It must not know a plugin: a plugin's table stays as it was written until the plugin's own class is known.
Settings are merged in this order, later over earlier: `default.toml`, `gateway.toml`, the environment
(`GATEWAY__TABLE__KEY`), the command line.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from gateway_core.config.converter import MASK, Bytes, EnvText, Seconds, SettingsConverter, did_you_mean
from gateway_core.errors import ConfigError
from gateway_core.net.addresses import Network

T = TypeVar("T")
Table = dict[str, Any]

ENV_PREFIX = "GATEWAY__"
FILE_NAME = "gateway.toml"

_TABLES = ("server", "http", "clients", "catalog", "runs", "state", "agents", "plugins")

MAX_DEPTH = 100
"""Levels of tables and lists in each other; what is read walks through them by recursion."""

SHORT_FORMS = {"GATEWAY_AGENT_WATCH": "GATEWAY__PLUGINS__HOT_RELOAD__ENABLED"}
"""Environment variables that have a name of their own, and the setting that each is."""
_SECRET_KEY = re.compile(r"key|secret|token|password|authorization|credential", re.IGNORECASE)


@frozen
class ServerConfig:
    """`[server]`: the socket, and how the process stops."""

    host: str
    port: int
    admin_listen: str
    backlog: int
    keep_alive: Seconds
    send_timeout: Seconds
    drain_delay: Seconds
    drain_timeout: Seconds

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """The host and port of `admin_listen`.

        Raises:
            ConfigError: It is no address.
        """
        if not self.admin_listen:
            return None
        host, _, port = self.admin_listen.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(
                f"'{self.admin_listen}' is no address", source="[server] admin_listen", hint="write it as host:port"
            )
        return host, int(port)


@frozen
class HttpConfig:
    """`[http]`: what a request may look like."""

    max_headers: int
    max_header_bytes: Bytes
    max_body: Bytes
    body_timeout: Seconds
    max_json_depth: int
    max_messages: int
    max_tools: int
    max_images: int
    fetch_images: bool
    fetch_images_from: list[Network]
    cors_origins: list[str]
    sse_keep_alive: Seconds
    keep_responses: Seconds


RenderingName = Literal["plain", "reasoning", "openwebui"]


@frozen
class ClientsConfig:
    """`[clients]`: how chat clients are shown what an agent does."""

    rendering: RenderingName
    reasoning: Literal["reasoning_content", "reasoning", "both", "none"]
    max_result: int
    principals: dict[str, RenderingName]


@frozen
class CatalogConfig:
    """`[catalog]`: how agents are loaded."""

    load_timeout: Seconds
    trial_import: bool
    show_broken: bool


OnDisconnect = Literal["cancel", "grace", "detach"]


@frozen
class RunsConfig:
    """`[runs]`: what a run may take."""

    max_runs: int
    max_streams: int
    timeout: Seconds
    max_turns: int
    max_tool_calls: int
    output_guardrails: Literal["buffer", "stream"]
    refusal: str
    workflow_history: bool
    sdk_tracing: bool
    on_disconnect: OnDisconnect
    grace: Seconds
    keep_results: Seconds
    approval_timeout: Seconds
    refused_tool: Literal["tell", "fail"]
    tool_threads: int
    tool_threads_per_agent: int


@frozen
class StateConfig:
    """`[state]`: what outlives the process."""

    folder: Path | None


@frozen
class AgentConfig:
    """`[agents.NAME]`: an operator's settings for one agent."""

    model: str | None = None
    background_tasks: bool = True
    on_disconnect: OnDisconnect | None = None
    tools: list[str] = field(factory=list)


@frozen
class Config:
    """The whole configuration. `plugins` keeps the plugins' own tables as written, in the order of calling."""

    server: ServerConfig
    http: HttpConfig
    clients: ClientsConfig
    catalog: CatalogConfig
    runs: RunsConfig
    state: StateConfig
    agents: dict[str, AgentConfig]
    plugins: dict[str, Table]
    file: Path
    """The `gateway.toml`, whether it is there or not."""
    again: "Callable[[], Config]" = field(repr=False, eq=False)
    """Reads it once more, with the same command line and the environment of that moment."""
    tables: Table = field(repr=False)
    """Everything as merged, for `agent-gateway config`."""
    structurer: SettingsConverter = field(repr=False)

    def agent(self, agent_id: str) -> AgentConfig:
        """The operator's settings for an agent; ids compare case-insensitively, as everywhere."""
        wanted = agent_id.casefold()
        return next((own for name, own in self.agents.items() if name.casefold() == wanted), AgentConfig())

    def structure(self, table: Table, cls: type[T], *path: str) -> T:
        """Check a table against an attrs class.

        Args:
            table: The table as written.
            cls: What it has to fit.
            path: Where the table stands, such as `"plugins", "security"`.

        Raises:
            ConfigError: A key is unknown, missing or of the wrong type; it names the file, the table and the key.
        """
        return self.structurer.structure(table, cls, path)


def load_config(
    file: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read and check the configuration.

    Args:
        file: The `gateway.toml` to read. Without it, the one in the working directory, if there is one.
        overrides: Settings of the command line: tables of tables, merged last.
        environ: The environment; the process's own unless given.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or a setting is wrong.
    """
    named = file or Path(FILE_NAME)
    # What it is called in messages, and where it is: the working directory may change before it is read again.
    return _load(named, named.absolute(), file is not None, overrides or {}, environ)


def _load(
    named: Path, path: Path, required: bool, overrides: Mapping[str, Any], environ: Mapping[str, str] | None
) -> Config:
    tables: Table = {}
    origins: dict[tuple[str, ...], str] = {}
    _merge(tables, tomllib.loads(_default_text()), origins, "default.toml")
    base = path.parent
    if required or path.is_file():
        base = path.resolve().parent
        _merge(tables, _read(path, named), origins, str(named))
    _merge_environment(tables, os.environ if environ is None else environ, origins)
    # A copy: what is merged first is written into.
    _merge(tables, deepcopy(dict(overrides)), origins, "the command line")
    return _build(tables, origins, base, path, lambda: _load(named, path, required, overrides, environ))


def mask_secrets(table: Table) -> Table:
    """A copy of merged settings in which everything that may be a secret is masked."""
    return {key: _mask(key, value) for key, value in table.items()}


def _mask(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if key == "headers":
            return {name: MASK if isinstance(text, str) else text for name, text in value.items()}
        return value if set(value) in ({"env"}, {"file"}) else mask_secrets(value)
    if isinstance(value, str) and _SECRET_KEY.search(key):
        return MASK
    if isinstance(value, list):
        return [_mask(key, item) for item in value]
    return value


def _default_text() -> str:
    return resources.files("gateway_core").joinpath("default.toml").read_text(encoding="utf-8")


def _read(path: Path, named: Path) -> Table:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no such file", source=str(named), hint="`agent-gateway init` writes one to start from"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(named)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", source=str(named)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is no valid TOML: {error}", source=str(named)) from error
    except RecursionError:
        raise _too_deep(str(named)) from None
    if _deeper_than(MAX_DEPTH, table):
        raise _too_deep(str(named))
    return table


def _deeper_than(levels: int, table: Table) -> bool:
    values: list[Any] = [table]
    for _ in range(levels):
        inner = (value.values() if isinstance(value, dict) else value for value in values)
        values = [each for some in inner for each in some if isinstance(each, dict | list)]
    return bool(values)


def _too_deep(source: str) -> ConfigError:
    return ConfigError(f"is nested more than {MAX_DEPTH} levels deep", source=source, hint="no setting needs that")


def _merge(into: Table, new: Table, origins: dict[tuple[str, ...], str], origin: str, *path: str) -> None:
    for key, value in new.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict) and set(value) not in ({"env"}, {"file"}):
            _merge(into[key], value, origins, origin, *here)
        else:
            into[key] = value
            for place in (here, *_paths_below(value, here)):
                origins[place] = origin
        origins.setdefault(here, origin)


def _paths_below(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from _paths_below(inner, (*path, key))


def _merge_environment(tables: Table, environ: Mapping[str, str], origins: dict[tuple[str, ...], str]) -> None:
    for name in sorted(environ):
        long_form = SHORT_FORMS.get(name, name)
        if not long_form.startswith(ENV_PREFIX):
            continue
        table, path = tables, []
        *parents, last = long_form.removeprefix(ENV_PREFIX).split("__")
        if len(parents) >= MAX_DEPTH:
            raise _too_deep(f"environment variable {name[:100]}")
        for part in parents:
            key = _existing_key(table, part)
            path.append(key)
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ConfigError(f"'{key}' is a setting, not a table", source=f"environment variable {name}")
        key = _existing_key(table, last)
        table[key] = EnvText(environ[name])
        origins[(*path, key)] = f"environment variable {name}"


def _existing_key(table: Table, part: str) -> str:
    return next((key for key in table if key.casefold() == part.casefold()), part.lower())


def _build(
    tables: Table,
    origins: Mapping[tuple[str, ...], str],
    base: Path,
    file: Path,
    again: Callable[[], Config],
) -> Config:
    for name in tables:
        if name not in _TABLES:
            raise ConfigError(
                f"unknown table or key '{name}'", source=origins.get((name,)), hint=did_you_mean(name, _TABLES)
            )
    check = SettingsConverter(origins, base)
    agents = {
        name: check.structure(own, AgentConfig, ("agents", name))
        for name, own in _tables_of(tables.get("agents", {}), "agents", origins)
    }
    return Config(
        server=check.structure(tables["server"], ServerConfig, ("server",)),
        http=check.structure(tables["http"], HttpConfig, ("http",)),
        clients=check.structure(tables["clients"], ClientsConfig, ("clients",)),
        catalog=check.structure(tables["catalog"], CatalogConfig, ("catalog",)),
        runs=check.structure(tables["runs"], RunsConfig, ("runs",)),
        state=check.structure(tables["state"], StateConfig, ("state",)),
        agents=agents,
        plugins=dict(_tables_of(tables.get("plugins", {}), "plugins", origins)),
        file=file,
        again=again,
        tables=tables,
        structurer=check,
    )


def _tables_of(value: Any, name: str, origins: Mapping[tuple[str, ...], str]) -> Iterator[tuple[str, Table]]:
    for key, table in value.items() if isinstance(value, dict) else [("", value)]:
        if not isinstance(table, dict):
            raise ConfigError(
                f"[{name}] holds tables, and '{key}' is a {type(table).__name__}",
                source=origins.get((name, key)) or origins.get((name,)),
                hint=f"write [{name}.{key or 'NAME'}]",
            )
        yield key, table
