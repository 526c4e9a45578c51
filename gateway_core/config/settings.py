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
from typing import Any, Literal, NoReturn, TypeVar

from attrs import field, frozen

from gateway_core.config.converter import SettingsConverter
from gateway_core.config.hosts import Address, Host, Origin, host_and_port
from gateway_core.config.places import Places, line_of
from gateway_core.config.problems import Problems
from gateway_core.config.sources import Table, in_file, merge, merge_environment, misnamed_variables, read_toml
from gateway_core.config.values import (
    MASK,
    Amount,
    Bytes,
    Count,
    Port,
    Seconds,
    Size,
    Timeout,
    did_you_mean,
    reveal_secrets,
)
from gateway_core.errors import ConfigError, GatewayError
from gateway_core.net.addresses import Network
from gateway_core.sdk.sandbox_clients import check_client

T = TypeVar("T")

FILE_NAME = "gateway.toml"

_TABLES = ("server", "http", "clients", "catalog", "runs", "state", "agents", "plugins")

SUSPICIOUS = "suspicious_setting"
"""The code of a `ConfigError` that is only a warning: the setting has no effect now, but may be intended."""

SHORT_FORMS = {"GATEWAY_AGENT_WATCH": "GATEWAY__PLUGINS__HOT_RELOAD__ENABLED"}
"""Aliases of environment variables: the short name and the full name."""
_SECRET_KEY = re.compile(r"key|secret|token|password|authorization|credential", re.IGNORECASE)


@frozen
class ServerConfig:
    """`[server]`: the listening socket, connections and shutdown."""

    host: Host
    port: Port
    admin_listen: Address
    backlog: Count
    keep_alive: Seconds
    send_timeout: Timeout
    drain_delay: Seconds
    drain_timeout: Seconds

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """The host and port of `admin_listen`, or `None` if it is empty."""
        return host_and_port(self.admin_listen) if self.admin_listen else None


@frozen
class HttpConfig:
    """`[http]`: limits and options of HTTP requests and responses."""

    max_headers: Count
    max_header_bytes: Size
    max_body: Size
    body_timeout: Timeout
    max_json_depth: Count
    max_json_values: Count
    max_messages: Count
    max_parts: Count
    max_tools: Amount
    max_images: Amount
    fetch_images: bool
    fetch_images_from: list[Network]
    cors_origins: list[Origin]
    sse_keep_alive: Timeout
    keep_responses: Seconds
    max_conversation: Size
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
    max_result: Amount
    principals: dict[str, RenderingName]


@frozen
class CatalogConfig:
    """`[catalog]`: loading of agents."""

    load_timeout: Timeout
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
    max_workspaces: Count

    def __attrs_post_init__(self) -> None:
        if self.client:
            check_client(self.client, self.options)


@frozen
class RunsConfig:
    """`[runs]`: limits and behavior of runs."""

    max_runs: Count
    max_streams: Count
    timeout: Timeout
    max_turns: Count
    max_tool_calls: Amount
    output_guardrails: Literal["buffer", "stream"]
    refusal: str
    workflow_history: bool
    sdk_tracing: bool
    on_disconnect: OnDisconnect
    grace: Seconds
    keep_results: Seconds
    approval_timeout: Timeout
    tool_errors: Literal["local", "all", "none"]
    refused_tool: Literal["tell", "fail"]
    tool_threads: Count
    tool_threads_per_agent: Count
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
    places: Places = field(repr=False, eq=False)
    warnings: tuple[ConfigError, ...] = ()
    """Probable mistakes that have no effect."""

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

    def locate(self, error: GatewayError) -> None:
        """Add the file and the line to an error whose source is a table and a key, such as `[server] port`."""
        self.places.locate(error)


def load_config(
    file: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    problems: Problems | None = None,
) -> Config:
    """Load and validate the configuration.

    Args:
        file: The `gateway.toml` to read, which must exist. Default: the one in the working directory, if it exists.
        overrides: Settings of the command line as nested tables, merged last.
        environ: The environment variables. Default: the environment of the process.
        problems: Collects the errors of settings instead of raising them; an invalid table then has its defaults.

    Raises:
        ConfigError: The file cannot be read, is not valid TOML, or a setting is invalid.
    """
    named = file or Path(FILE_NAME)
    # Messages use the name as given. A reload uses the absolute path, because the working directory may have changed.
    return _load(named, named.absolute(), file is not None, overrides or {}, environ, problems)


def _load(
    named: Path,
    path: Path,
    required: bool,
    overrides: Mapping[str, Any],
    environ: Mapping[str, str] | None,
    problems: Problems | None = None,
) -> Config:
    found = Problems() if problems is None else problems
    tables: Table = {}
    origins: dict[tuple[str, ...], str] = {}
    stamp = _stamp(path)
    merge(tables, tomllib.loads(_default_text()), origins, "default.toml")
    base, text = path.parent, ""
    if required or path.is_file():
        base = path.resolve().parent
        text, table = read_toml(path, named)
        _drop_plain_values(table, str(named), text, found)
        merge(tables, table, origins, str(named))
    variables = os.environ if environ is None else environ
    merge_environment(tables, variables, origins, SHORT_FORMS, found)
    # Copied, because a later merge would modify it.
    merge(tables, deepcopy(dict(overrides)), origins, "the command line")
    config = _build(
        tables,
        Places(origins, tables, str(named), text),
        base,
        path,
        lambda: _load(named, path, required, overrides, environ),
        lambda: _sources(_stamp(path), tables, environ),
        # Taken before the sources are read, so that a change during the load is not missed.
        _sources(stamp, tables, environ),
        found,
        tuple(misnamed_variables(variables, _TABLES)),
    )
    if problems is None:
        found.raise_found()
    return config


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


def _drop_plain_values(table: Table, source: str, text: str, problems: Problems) -> None:
    for name in [name for name, value in table.items() if name in _TABLES and not isinstance(value, dict)]:
        with problems.collected():
            value = table.pop(name)
            line = line_of(text, (name,))
            raise in_file(f"must be a table, not {value!r:.40}", source, line, name, f"write [{name}]")


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


def _build(
    tables: Table,
    places: Places,
    base: Path,
    file: Path,
    reread: Callable[[], Config],
    sources: Callable[[], Sources],
    read_from: Sources,
    problems: Problems,
    warnings: tuple[ConfigError, ...],
) -> Config:
    def structure(cls: type[T], *path: str) -> T:
        with problems.collected():
            return converter.structure(_table_at(tables, path), cls, path)
        # A gateway with defaults in place of the invalid table, for the checks that follow.
        return converter.structure(_table_at(tomllib.loads(_default_text()), path), cls, path)

    for name in tables:
        if name not in _TABLES:
            with problems.collected():
                hint = _table_hint(name, tables[name]) or did_you_mean(name, _TABLES)
                _raise_at(places, f"unknown table or key '{name}'", f"[{name}]", hint)
    converter = SettingsConverter(places, base)
    agents: dict[str, AgentConfig] = {}
    for name in _tables_of(tables, "agents", places, problems):
        with problems.collected():
            agents[name] = converter.structure(tables["agents"][name], AgentConfig, ("agents", name))
    return Config(
        server=structure(ServerConfig, "server"),
        http=structure(HttpConfig, "http"),
        clients=structure(ClientsConfig, "clients"),
        catalog=structure(CatalogConfig, "catalog"),
        runs=structure(RunsConfig, "runs"),
        state=structure(StateConfig, "state"),
        agents=agents,
        plugins={name: tables["plugins"][name] for name in _tables_of(tables, "plugins", places, problems)},
        file=file,
        reread=reread,
        sources=sources,
        read_from=read_from,
        tables=tables,
        converter=converter,
        places=places,
        warnings=warnings,
    )


def _table_hint(key: str, value: Any) -> str | None:
    """Return the table that a setting outside of any table belongs to; `None` if it is not a setting."""
    defaults = tomllib.loads(_default_text())
    names = [name for name in _TABLES if not isinstance(value, dict) and key in defaults.get(name, {})]
    return f"move it below {' or '.join(f'[{name}]' for name in names)}" if names else None


def _table_at(tables: Table, path: tuple[str, ...]) -> Table:
    for key in path:
        tables = tables[key]
    return tables


def _tables_of(tables: Table, name: str, places: Places, problems: Problems) -> list[str]:
    """Return the names of the tables in a table; other keys are errors."""
    found = []
    for key, value in tables.get(name, {}).items():
        if isinstance(value, dict):
            found.append(key)
            continue
        with problems.collected():
            kind = type(value).__name__
            _raise_at(
                places,
                f"[{name}] must contain tables, but '{key}' is of type {'str' if kind == 'EnvText' else kind}",
                f"[{name}] {key}",
                f"write [{name}.{key}]",
            )
    return found


def _raise_at(places: Places, message: str, source: str, hint: str) -> NoReturn:
    error = ConfigError(message, source=source, hint=hint)
    places.locate(error)
    raise error
