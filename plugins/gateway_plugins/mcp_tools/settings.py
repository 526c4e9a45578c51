"""`[plugins.mcp_tools]`: the MCP servers whose tools agents may use, and how to talk to each.

It holds and checks values only; what becomes of them is in the modules beside it.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import Factory, field, frozen

from gateway_core import Bytes, ConfigError, Seconds, Secret

# Two underscores stand between a server's name and its tool's.
NAME = re.compile(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*")
MAX_NAME = 24
_URL = re.compile(r"https?://[^/?#\\@\s]+([/?][^#\\\s]*)?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# What the protocol and the connection itself write.
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "accept", "connection", "transfer-encoding", "mcp-session-id"}
)
_CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})


@frozen
class OAuth:
    """`[plugins.mcp_tools.NAME.oauth]`: client credentials (RFC 6749, section 4.4)."""

    token_url: str
    """The authorization server's token endpoint; the secret is sent to nobody else."""
    client_id: str
    client_secret: Secret
    scope: str | None = None


@frozen
class McpServer:
    """`[plugins.mcp_tools.NAME]`: one MCP server, or one gateway in front of several."""

    kind: Literal["http", "sse", "stdio", "mcp-gateway"]
    url: str | None = None
    """The endpoint; of an mcp-gateway, what its paths start from."""
    command: list[str] = Factory(list)
    """For stdio: the program and its arguments. It is run without a shell."""
    env: dict[str, Secret] = Factory(dict)
    """For stdio: added to the few variables that every server gets."""
    cwd: Path | None = None
    stderr: Literal["drop", "log"] = "drop"
    """For stdio: what becomes of what the server writes to its standard error."""
    tools: list[str] = Factory(list)
    """Only these are on offer, and their names are known before the server is up."""
    open: bool = True
    """Whether agents may call its tools when no policy has an opinion on them."""
    idempotent: list[str] = Factory(list)
    """Tools that may be called twice, beside those that the server says it of."""
    pin: bool = False
    """Whether a tool that changes, or is new, must be approved before it is called."""
    token: Secret | None = None
    """Sent as a bearer token."""
    token_file: Path | None = None
    """A file with a bearer token, read again when it changes."""
    oauth: OAuth | None = None
    headers: dict[str, Secret] = Factory(dict)
    identity: Literal["shared", "principal"] = "shared"
    """Whether all principals share one session, or each has one of its own."""
    identity_headers: dict[str, str] = Factory(dict)
    """Headers that tell the server who asks: `{principal}` stands for the principal's id."""
    forward_headers: list[str] = Factory(list)
    """Headers of a client's request that go to the server with the calls that are made for it."""
    timeout: Seconds = Seconds(60.0)
    """For one call."""
    connect_timeout: Seconds = Seconds(10.0)
    """For a connection to be made, and for a call to wait for one."""
    list_ttl: Seconds = Seconds(300.0)
    """How old the list of tools may get; a server that tells of changes is asked sooner."""
    max_result: Bytes = Bytes(1024 * 1024)
    """What goes back to the model; the rest is cut off, with a note."""
    max_message: Bytes = Bytes(32 * 1024 * 1024)
    """What an HTTP server may send at once."""
    protocol: Literal["auto", "legacy"] = "auto"
    """`legacy` spares old servers the question for the newest revision."""
    adapters: list[str] = Factory(list)
    """Of an mcp-gateway: only these; without it, all that it lists."""
    router: bool = True
    """Of an mcp-gateway: whether the tools of its tool router are on offer, too."""

    def check(self) -> None:
        """Refuse what can never work, or must not.

        Raises:
            ConfigError: It says which setting is wrong; the place is the caller's to add.
        """
        if self.kind == "stdio":
            self._check_stdio()
        elif not self.url or not _URL.fullmatch(self.url):
            raise ConfigError(
                f"is no address of a server: {self.url!r}", source="url", hint="http:// or https://, and no credentials"
            )
        elif self.command or self.env or self.cwd:
            raise ConfigError("is for a server of kind stdio", source="command" if self.command else "env")
        for name in (*self.headers, *self.identity_headers, *self.forward_headers):
            if not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
                raise ConfigError(f"is no header that may be set: {name!r}", source="headers")
        self._check_identity()

    def _check_stdio(self) -> None:
        if not self.command:
            raise ConfigError("is missing", source="command", hint='a list, such as ["uvx", "mcp-server-time"]')
        for key in ("url", "token", "token_file", "oauth", "headers", "identity_headers", "forward_headers"):
            if getattr(self, key):
                raise ConfigError("is for a server that is reached by HTTP", source=key)
        if self.identity == "principal":
            raise ConfigError("is for a server that is reached by HTTP", source="identity")

    def _check_identity(self) -> None:
        if sum(map(bool, (self.token, self.token_file, self.oauth))) > 1:
            raise ConfigError("is given beside another credential", source="token", hint="choose one")
        if self.identity == "principal":
            return
        if any("{principal}" in value for value in self.identity_headers.values()):
            raise ConfigError("tells who asks in a session that all share", source="identity_headers", hint=_PRINCIPAL)
        if any(name.lower() in _CREDENTIALS for name in self.forward_headers):
            raise ConfigError(
                "sends credentials in a session that all share", source="forward_headers", hint=_PRINCIPAL
            )


_PRINCIPAL = 'set identity = "principal"'


@frozen
class _Switches:
    start_timeout: Seconds = Seconds(2.0)


@frozen
class Settings:
    """`[plugins.mcp_tools]`."""

    start_timeout: Seconds = Seconds(2.0)
    """How long the start waits for servers whose tools are not known from an earlier time."""
    servers: Mapping[str, McpServer] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Tables below the plugin's own are servers, the rest are its settings."""
        own = {key: value for key, value in table.items() if not isinstance(value, dict)}
        switches = structure(own, _Switches)
        servers = {name: _server(name, value, structure) for name, value in table.items() if isinstance(value, dict)}
        return cls(switches.start_timeout, servers)


def _server(name: str, table: Mapping[str, Any], structure: Callable[..., Any]) -> McpServer:
    place = f"[plugins.mcp_tools.{name}]"
    if not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigError(
            "is no name of a server",
            source=place,
            hint=f"letters and digits, with single '_' or '-' between them, {MAX_NAME} at most",
        )
    server: McpServer = structure(table, McpServer, name)
    try:
        server.check()
    except ConfigError as error:
        raise ConfigError(error.message, source=f"{place} {error.source}", hint=error.hint) from None
    return server
