"""Defines and validates `[plugins.mcp_tools]`: the MCP servers whose tools agents may use.

Other modules of the plugin apply the settings.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, evolve, field, frozen

from gateway_core import Amount, Bytes, ConfigError, Seconds, Secret, Timeout, named_tables

# Two underscores separate the server's name from the tool's name.
NAME = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")
MAX_NAME = 24
_URL = re.compile(r"https?://[^/?#\\@\s]+([/?][^#\\\s]*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Headers that the protocol and the HTTP client set.
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "accept", "connection", "transfer-encoding", "mcp-session-id"}
)
_CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})


@frozen
class OAuth:
    """`[plugins.mcp_tools.NAME.oauth]`: client credentials (RFC 6749, section 4.4)."""

    token_url: str
    """The authorization server's token endpoint; the secret is sent only there."""
    client_id: str
    client_secret: Secret
    scope: str | None = None


@frozen
class McpServer:
    """`[plugins.mcp_tools.NAME]`: one MCP server, or one gateway in front of several."""

    kind: Literal["http", "sse", "stdio", "mcp-gateway"]
    url: str | None = None
    """The endpoint; for an mcp-gateway, its base URL."""
    command: list[str] = Factory(list)
    """For stdio: the program and its arguments. No shell is used."""
    env: dict[str, Secret] = Factory(dict)
    """For stdio: variables to add to the minimal environment of every server."""
    cwd: Path | None = None
    stderr: Literal["drop", "log"] = "drop"
    """For stdio: handling of the server's standard error output. `log` writes it at level DEBUG."""
    tools: list[str] = Factory(list)
    """Offer only these tools. They are offered even before the server is connected."""
    open: bool = True
    """Whether agents may call its tools when every policy abstains."""
    idempotent: list[str] = Factory(list)
    """Tools whose calls may be retried, in addition to those that the server marks as safe."""
    pin: bool = False
    """Whether a new or changed tool must be approved before it can be called."""
    token: Secret | None = None
    """Sent as a bearer token."""
    token_file: Path | None = None
    """A file with a bearer token; it is read again when it changes."""
    oauth: OAuth | None = None
    headers: dict[str, Secret] = Factory(dict)
    identity: Literal["shared", "principal"] = "shared"
    """Whether all principals share one session, or each principal has its own session."""
    identity_headers: dict[str, str] = Factory(dict)
    """Headers that identify the caller to the server. `{principal}` is replaced by the principal's id."""
    forward_headers: list[str] = Factory(list)
    """Headers of the client's request to send with the calls of its run."""
    timeout: Timeout = Timeout(60.0)
    """For one call."""
    connect_timeout: Timeout = Timeout(10.0)
    """For opening a session, and for a call that waits for one."""
    list_ttl: Seconds = Seconds(300.0)
    """Interval between two listings of the tools. A reported change triggers a listing sooner."""
    max_result: Bytes = Bytes(1024 * 1024)
    """Maximum size of a result for the model; the rest is cut off, with a note."""
    max_message: Bytes = Bytes(32 * 1024 * 1024)
    """Maximum size of one HTTP response or event."""
    max_values: Amount = Amount(50_000)
    """Maximum number of JSON values of one HTTP response or event."""
    protocol: Literal["auto", "legacy"] = "auto"
    """`legacy` skips the probe for the newest protocol revision, which some old servers do not support."""
    adapters: list[str] = Factory(list)
    """For an mcp-gateway: use only these adapters. By default all that it lists are used."""
    router: bool = True
    """For an mcp-gateway: whether to also offer the tools of its tool router."""

    def __attrs_post_init__(self) -> None:
        """Reject invalid or unsafe combinations of settings.

        Raises:
            ConfigError: A setting is invalid. Its source is the setting's name.
        """
        if self.kind == "stdio":
            self._check_stdio()
        elif not self.url or not _URL.fullmatch(self.url):
            raise ConfigError(
                f"invalid URL: {self.url!r}", source="url", hint="use http:// or https://, without credentials in it"
            )
        elif self.command or self.env or self.cwd:
            key = "command" if self.command else "env" if self.env else "cwd"
            raise ConfigError('requires kind = "stdio"', source=key)
        for name in (*self.headers, *self.identity_headers, *self.forward_headers):
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ConfigError(f"invalid or reserved header name: {name!r}", source="headers")
        self._check_identity()

    def _check_stdio(self) -> None:
        if not self.command:
            raise ConfigError(
                'is required for kind = "stdio"',
                source="command",
                hint='use a list, such as ["uvx", "mcp-server-time"]',
            )
        for key in ("url", "token", "token_file", "oauth", "headers", "identity_headers", "forward_headers"):
            if getattr(self, key):
                raise ConfigError('not supported for kind = "stdio"', source=key)
        if self.identity == "principal":
            raise ConfigError('"principal" is not supported for kind = "stdio"', source="identity")

    def _check_identity(self) -> None:
        if sum(map(bool, (self.token, self.token_file, self.oauth))) > 1:
            raise ConfigError(
                "more than one credential is configured", source="token", hint="keep one of token, token_file and oauth"
            )
        if self.identity == "principal":
            return
        if any("{principal}" in value for value in self.identity_headers.values()):
            raise ConfigError(
                "{principal} cannot be used in a session that all principals share",
                source="identity_headers",
                hint=_PRINCIPAL,
            )
        if any(name.lower() in _CREDENTIALS for name in self.forward_headers):
            raise ConfigError(
                "credentials cannot be forwarded in a session that all principals share",
                source="forward_headers",
                hint=_PRINCIPAL,
            )


_PRINCIPAL = 'set identity = "principal"'


@frozen
class Settings:
    """`[plugins.mcp_tools]`."""

    start_timeout: Seconds = Seconds(2.0)
    """Maximum delay of the startup for servers whose tools are not cached."""
    servers: Mapping[str, McpServer] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Build the settings from the plugin's table. Nested tables are servers."""
        settings: Settings
        settings, servers = named_tables(
            table, lambda own: structure(own, cls), lambda name, value: _server(name, value, structure)
        )
        return evolve(settings, servers=servers)


def _server(name: str, table: Mapping[str, Any], structure: Callable[..., Any]) -> McpServer:
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigError(
            "invalid server name",
            source=f"[plugins.mcp_tools.{name}]",
            hint=f"use letters and digits, separated by single '_' or '-', up to {MAX_NAME} characters",
        )
    server: McpServer = structure(table, McpServer, name)
    return server
