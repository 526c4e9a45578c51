"""Loads the settings from `gateway.toml`, the environment and the command line, and validates them.

Sources in ascending precedence: `default.toml`, `gateway.toml`, environment variables (`GATEWAY__TABLE__KEY`), the
command line. The module does not depend on plugins: a plugin's table is validated when the plugin's class is loaded.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from attrs import field, frozen

from gateway_core.config.converter import (
    MASK,
    Bytes,
    EnvText,
    Seconds,
    SettingsConverter,
    did_you_mean,
    reveal_secrets,
)
from gateway_core.errors import ConfigError
from gateway_core.net.addresses import Network
from gateway_core.sdk.sandbox_clients import check_client

T = TypeVar("T")
Table = dict[str, Any]

ENV_PREFIX = "GATEWAY__"
FILE_NAME = "gateway.toml"

_TABLES = ("server", "http", "clients", "catalog", "runs", "state", "agents", "plugins")

MAX_DEPTH = 100
"""Maximum nesting of tables and lists, which protects recursive code."""

SHORT_FORMS = {"GATEWAY_AGENT_WATCH": "GATEWAY__PLUGINS__HOT_RELOAD__ENABLED"}
"""Aliases of environment variables: the short name and the full name."""
_SECRET_KEY = re.compile(r"key|secret|token|password|authorization|credential", re.IGNORECASE)


@frozen
class ServerConfig:
    """`[server]`: the listening socket, connections and shutdown."""

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
        """The host and port of `admin_listen`, or `None` if it is empty.

        Raises:
            ConfigError: The value is not a valid address.
        """
        if not self.admin_listen:
            return None
        host, _, port = self.admin_listen.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(
                f"'{self.admin_listen}' is not a valid address", source="[server] admin_listen", hint="use host:port"
            )
        return host, int(port)


@frozen
class HttpConfig:
    """`[http]`: limits and options of HTTP requests and responses."""

    max_headers: int
    max_header_bytes: Bytes
    max_body: Bytes
    body_timeout: Seconds
    max_json_depth: int
    max_json_values: int
    max_messages: int
    max_parts: int
    max_tools: int
    max_images: int
    fetch_images: bool
    fetch_images_from: list[Network]
    cors_origins: list[str]
    sse_keep_alive: Seconds
    keep_responses: Seconds
    max_conversation: Bytes
    idempotency: Seconds
    idempotency_size: Bytes


RenderingName = Literal["plain", "reasoning", "openwebui"]


ClientToolsMode = Literal["offer", "ignore"]


@frozen
class ClientsConfig:
    """`[clients]`: rendering of an agent's activity for chat clients, and the handling of their tools."""

    client_tools: ClientToolsMode
    rendering: RenderingName
    reasoning: Literal["reasoning_content", "reasoning", "both", "none"]
    max_result: int
    principals: dict[str, RenderingName]


@frozen
class CatalogConfig:
    """`[catalog]`: loading of agents."""

    load_timeout: Seconds
    trial_import: bool
    show_broken: bool


OnDisconnect = Literal["cancel", "grace", "detach"]


LeftoverProcessesMode = Literal["end", "keep"]


SandboxClient = Literal["", "docker", "local", "blaxel", "cloudflare", "daytona", "e2b", "modal", "runloop", "vercel"]


@frozen
class SandboxConfig:
    """`[runs.sandbox]`: the workspaces of agents that work in a sandbox.

    Raises:
        ConfigError: The client's package is missing, or an option is invalid.
    """

    client: SandboxClient
    options: dict[str, Any] = field(converter=reveal_secrets, repr=False)
    idle: Seconds
    max_workspaces: int

    def __attrs_post_init__(self) -> None:
        if self.max_workspaces < 1:
            raise ConfigError("must be at least 1", source="max_workspaces")
        if self.client:
            check_client(self.client, self.options)


@frozen
class RunsConfig:
    """`[runs]`: limits and behavior of runs."""

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
    tool_errors: Literal["local", "all", "none"]
    refused_tool: Literal["tell", "fail"]
    tool_threads: int
    tool_threads_per_agent: int
    leftover_processes: LeftoverProcessesMode
    sandbox: SandboxConfig


@frozen
class StateConfig:
    """`[state]`: the state directory."""

    folder: Path | None


@frozen
class AgentConfig:
    """`[agents.NAME]`: the operator's settings for an agent."""

    entry: str | None = None
    model: str | None = None
    background_tasks: bool = True
    on_disconnect: OnDisconnect | None = None
    leftover_processes: LeftoverProcessesMode | None = None
    client_tools: ClientToolsMode | None = None
    tools: list[str] = field(factory=list)


@frozen
class Sources:
    """The state of what a configuration is read from."""

    files: tuple[tuple[int, ...] | None, ...]
    """Stamps of the `gateway.toml` and of the files of secrets; `None` for a missing one."""
    environment: Mapping[str, str]


@frozen
class Config:
    """The whole configuration. `plugins` contains the plugins' tables as parsed, in the order of calling."""

    server: ServerConfig
    http: HttpConfig
    clients: ClientsConfig
    catalog: CatalogConfig
    runs: RunsConfig
    state: StateConfig
    agents: dict[str, AgentConfig]
    plugins: dict[str, Table]
    file: Path
    """The path of the `gateway.toml`, which need not exist."""
    reread: "Callable[[], Config]" = field(repr=False, eq=False)
    """Loads the configuration again, with the same command line and the current environment."""
    sources: Callable[[], Sources] = field(repr=False, eq=False)
    """Returns the current state of the sources. Equal to `read_from` while none of them has changed."""
    read_from: Sources = field(repr=False, eq=False)
    """The state of the sources when they were read."""
    tables: Table = field(repr=False)
    """The merged tables, for `agent-gateway config`."""
    converter: SettingsConverter = field(repr=False)

    def agent(self, agent_id: str) -> AgentConfig:
        """Return the operator's settings for an agent. Ids are case-insensitive."""
        wanted = agent_id.casefold()
        return next((own for name, own in self.agents.items() if name.casefold() == wanted), AgentConfig())

    def structure(self, table: Table, cls: type[T], *path: str) -> T:
        """Validate a table and convert it to an attrs class.

        Args:
            table: The table as parsed.
            cls: The attrs class of the table.
            path: The path of the table, such as `"plugins", "security"`.

        Raises:
            ConfigError: A key is unknown, missing or of the wrong type. The error names file, table and key.
        """
        return self.converter.structure(table, cls, path)


def load_config(
    file: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Load and validate the configuration.

    Args:
        file: The `gateway.toml` to read, which must exist. Default: the one in the working directory, if it exists.
        overrides: Settings of the command line as nested tables, merged last.
        environ: The environment variables. Default: the environment of the process.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or a setting is invalid.
    """
    named = file or Path(FILE_NAME)
    # Messages use the name as given. A reload uses the absolute path, because the working directory may have changed.
    return _load(named, named.absolute(), file is not None, overrides or {}, environ)


def _load(
    named: Path, path: Path, required: bool, overrides: Mapping[str, Any], environ: Mapping[str, str] | None
) -> Config:
    tables: Table = {}
    origins: dict[tuple[str, ...], str] = {}
    stamp = _stamp(path)
    _merge(tables, tomllib.loads(_default_text()), origins, "default.toml")
    base = path.parent
    if required or path.is_file():
        base = path.resolve().parent
        table = _read(path, named)
        _check_tables(table, str(named))
        _merge(tables, table, origins, str(named))
    _merge_environment(tables, os.environ if environ is None else environ, origins)
    # Copied, because a later merge would modify it.
    _merge(tables, deepcopy(dict(overrides)), origins, "the command line")
    return _build(
        tables,
        origins,
        base,
        path,
        lambda: _load(named, path, required, overrides, environ),
        lambda: _sources(_stamp(path), tables, environ),
        # Taken before the sources are read, so that a change during the load is not missed.
        _sources(stamp, tables, environ),
    )


def _sources(stamp: tuple[int, ...] | None, tables: Table, environ: Mapping[str, str] | None) -> Sources:
    stamps = (stamp, *map(_stamp, _secret_files(tables)))
    return Sources(stamps, dict(os.environ if environ is None else environ))


def _secret_files(value: Any) -> Iterator[Path]:
    """The files of settings such as `{ file = "path" }`."""
    if isinstance(value, dict):
        if set(value) == {"file"} and isinstance(value["file"], str):
            with suppress(RuntimeError):  # an unknown user
                yield Path(value["file"]).expanduser()
        for inner in value.values():
            yield from _secret_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secret_files(inner)


def _check_tables(table: Table, source: str) -> None:
    for name, value in table.items():
        if name in _TABLES and not isinstance(value, dict):
            raise ConfigError(f"must be a table, not {value!r:.40}", source=f"{source}: {name}", hint=f"write [{name}]")


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):  # a name with a null character is a ValueError
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def mask_secrets(table: Table) -> Table:
    """Return a copy of merged settings in which potential secrets are masked."""
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
        raise ConfigError("file not found", source=str(named), hint="`agent-gateway init` creates one") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(named)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", source=str(named)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", source=str(named)) from error
    except RecursionError:
        raise _too_deep(str(named)) from None
    if deeper_than(MAX_DEPTH, table):
        raise _too_deep(str(named))
    return table


def deeper_than(levels: int, table: Table) -> bool:
    """Whether a table or JSON object contains more than this number of nested levels."""
    values: list[Any] = [table]
    for _ in range(levels):
        inner = (value.values() if isinstance(value, dict) else value for value in values)
        values = [each for some in inner for each in some if isinstance(each, dict | list)]
    return bool(values)


def _too_deep(source: str) -> ConfigError:
    return ConfigError(f"is nested more than {MAX_DEPTH} levels deep", source=source, hint="reduce the nesting")


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
    reread: Callable[[], Config],
    sources: Callable[[], Sources],
    read_from: Sources,
) -> Config:
    for name in tables:
        if name not in _TABLES:
            raise ConfigError(
                f"unknown table or key '{name}'", source=origins.get((name,)), hint=did_you_mean(name, _TABLES)
            )
    converter = SettingsConverter(origins, base)
    agents = {
        name: converter.structure(own, AgentConfig, ("agents", name))
        for name, own in _tables_of(tables.get("agents", {}), "agents", origins)
    }
    return Config(
        server=converter.structure(tables["server"], ServerConfig, ("server",)),
        http=converter.structure(tables["http"], HttpConfig, ("http",)),
        clients=converter.structure(tables["clients"], ClientsConfig, ("clients",)),
        catalog=converter.structure(tables["catalog"], CatalogConfig, ("catalog",)),
        runs=converter.structure(tables["runs"], RunsConfig, ("runs",)),
        state=converter.structure(tables["state"], StateConfig, ("state",)),
        agents=agents,
        plugins=dict(_tables_of(tables.get("plugins", {}), "plugins", origins)),
        file=file,
        reread=reread,
        sources=sources,
        read_from=read_from,
        tables=tables,
        converter=converter,
    )


def _tables_of(value: Any, name: str, origins: Mapping[tuple[str, ...], str]) -> Iterator[tuple[str, Table]]:
    for key, table in value.items() if isinstance(value, dict) else [("", value)]:
        if not isinstance(table, dict):
            raise ConfigError(
                f"[{name}] must contain tables, but '{key}' is of type {type(table).__name__}",
                source=origins.get((name, key)) or origins.get((name,)),
                hint=f"write [{name}.{key or 'NAME'}]",
            )
        yield key, table
