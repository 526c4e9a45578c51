"""Settings in `[plugins.security]`: keys, rules, overrides, limits, the audit log, and browser access.

The values are as written; `policy/compiler.py` validates and compiles them.
"""

from typing import Literal

from attrs import field, frozen

from gateway_core import AllowedHost, Amount, Bytes, Origin, Timeout

Fsync = Literal["always", "admin", "never"]


@frozen
class KeySettings:
    """`[plugins.security.keys.NAME]`: one key, as `agent-gateway keys create` prints it."""

    hash: str
    """`sha256:` and 64 hexadecimal digits."""
    id: str
    """The printable prefix of the key; it is not secret."""
    principal: str | None = None
    """The owner of the key; several keys may have the same owner. Default: NAME."""
    admin: bool = False
    """Whether the key is for the admin pages. An admin key may not use agents unless `admin_keys_may_chat` is set."""
    scopes: list[Literal["read", "reload", "override"]] | None = None
    """The scopes of an admin key. Default: all operations."""
    agents: list[str] | None = None
    """The allow list of agents for this key. If unset, the namespace and global rules decide."""
    deny_agents: list[str] = field(factory=list)
    tools: list[str] | None = None
    """The allow list of tools for this key, including the agents' own tools."""
    deny_tools: list[str] = field(factory=list)
    expires: str | None = None
    """A date, or a date and time, in ISO 8601; UTC unless it has an offset."""
    disabled: bool = False


@frozen
class NamespaceSettings:
    """`[plugins.security.namespaces.NAME]`: rules for a namespace and the namespaces below it, or for the agent with
    this id."""

    agents: list[str] = field(factory=list)
    deny_agents: list[str] = field(factory=list)
    tools: list[str] = field(factory=list)
    deny_tools: list[str] = field(factory=list)
    modules: list[str] | None = None
    """The allow list of modules."""
    deny_modules: list[str] = field(factory=list)
    block_tools: list[str] = field(factory=list)
    """Tools that no other rule and no override can allow."""
    only_tools: list[str] | None = None
    """The only tools that may be called; every other tool is blocked. The listed ones need no further rule."""
    closed_tools: list[Literal["sdk-native", "gateway", "mcp", "hosted"]] = field(factory=list)
    """Sources whose tools are denied unless a rule allows them."""
    native_tools: Literal["allow", "refuse"] | None = None
    """Whether agents' own tools that match no rule are allowed or refused."""


@frozen
class RuleSettings(NamespaceSettings):
    """`[plugins.security.rules]`: global rules, which apply where no more specific rule matches."""

    native_tools: Literal["allow", "refuse"] = "allow"
    """Whether agents' own tools that match no rule are allowed or refused."""


@frozen
class OverrideSettings:
    """`[plugins.security.overrides]`."""

    default_ttl: Timeout = Timeout(900.0)
    """The lifetime of an override that specifies none."""
    max_ttl: Timeout = Timeout(86400.0)
    """The maximum lifetime of an override."""
    granters: list[str] = field(factory=list)
    """The principals that may grant and revoke overrides; empty for every admin."""


@frozen
class LimitSettings:
    """`[plugins.security.limits]`. 0 means no limit. Requests without a key are counted by principal."""

    requests_per_minute: Amount = Amount(0)
    """For each key."""
    agent_requests_per_minute: Amount = Amount(0)
    """For each agent, from all callers."""
    total_requests_per_minute: Amount = Amount(0)
    """For the whole gateway."""
    concurrent_runs: Amount = Amount(0)
    """For each key."""
    agent_concurrent_runs: Amount = Amount(0)
    """For each agent, from all callers."""
    total_concurrent_runs: Amount = Amount(0)
    """For the whole gateway."""
    tokens_per_day: Amount = Amount(0)
    """For each key, as reported by upstreams. A run that starts below the limit may exceed it."""
    failed_authentications_per_minute: Amount = Amount(60)
    """For each client address."""
    storage: str = "memory://"
    """The storage of request counts: in memory, or a URI such as `redis://host:6379` that several gateways share."""


@frozen
class AuditSettings:
    """`[plugins.security.audit]`."""

    fsync: Fsync = "admin"
    """When to fsync: after every record, after changes by admins, or never."""
    on_full: Literal["serve", "refuse"] = "serve"
    """Whether runs may start while the audit log cannot be written. Changes by admins are always refused then."""
    max_size: Bytes = Bytes(64 * 1024 * 1024)
    """Maximum size of a file in bytes; the log is rotated before it exceeds this size."""
    keep: Amount = Amount(0)
    """Number of rotated files to keep; 0 keeps all."""


@frozen
class Settings:
    """`[plugins.security]`."""

    allowed_hosts: list[AllowedHost] = field(factory=list)
    """Additional host names under which clients may reach the gateway; `*` allows any host name."""
    allowed_origins: list[Origin] = field(factory=list)
    """Web origins whose pages may send changing requests to the admin pages."""
    admin_keys_may_chat: bool = False
    """Whether admin keys may also use agents, as far as the rules allow."""
    keys: dict[str, KeySettings] = field(factory=dict)
    namespaces: dict[str, NamespaceSettings] = field(factory=dict)
    rules: RuleSettings = RuleSettings()
    overrides: OverrideSettings = OverrideSettings()
    limits: LimitSettings = LimitSettings()
    audit: AuditSettings = AuditSettings()
