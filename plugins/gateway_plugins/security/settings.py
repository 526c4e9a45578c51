"""`[plugins.security]`: keys, rules, overrides, limits, the audit log, and who may call from a browser.

It holds values as they are written; what they mean is in `policy.py`.
"""

from typing import Literal

from attrs import field, frozen

from gateway_core import Bytes, Seconds

Fsync = Literal["always", "admin", "never"]


@frozen
class KeySettings:
    """`[plugins.security.keys.NAME]`: one key, as `agent-gateway keys create` prints it."""

    hash: str
    """`sha256:` and 64 hexadecimal digits."""
    id: str
    """The key's beginning, which may be shown."""
    principal: str | None = None
    """Who has it; several keys may name the same one. NAME, unless given."""
    admin: bool = False
    """For the admin pages, and for nothing else."""
    scopes: list[Literal["read", "reload", "override"]] | None = None
    """What an admin key may do; everything, unless given."""
    agents: list[str] | None = None
    """The only agents that it may use. Without it the namespaces and the global rules say."""
    deny_agents: list[str] = field(factory=list)
    tools: list[str] | None = None
    """The only tools that may be called with it, the agents' own included."""
    deny_tools: list[str] = field(factory=list)
    expires: str | None = None
    """A date, or a date and time, in ISO 8601; UTC unless it says otherwise."""
    disabled: bool = False


@frozen
class NamespaceSettings:
    """`[plugins.security.namespaces.NAME]`: what holds in a namespace and below, or for the one agent of this id."""

    agents: list[str] = field(factory=list)
    deny_agents: list[str] = field(factory=list)
    tools: list[str] = field(factory=list)
    deny_tools: list[str] = field(factory=list)
    modules: list[str] | None = None
    """The only modules that are loaded."""
    deny_modules: list[str] = field(factory=list)
    native_tools: Literal["allow", "refuse"] | None = None
    """What becomes of agents' own tools that no rule names."""


@frozen
class RuleSettings:
    """`[plugins.security.rules]`: what holds everywhere, where nothing nearer decides."""

    agents: list[str] = field(factory=list)
    deny_agents: list[str] = field(factory=list)
    tools: list[str] = field(factory=list)
    deny_tools: list[str] = field(factory=list)
    modules: list[str] | None = None
    """The only modules that are loaded."""
    deny_modules: list[str] = field(factory=list)
    native_tools: Literal["allow", "refuse"] = "allow"
    """What becomes of agents' own tools that no rule names."""


@frozen
class OverrideSettings:
    """`[plugins.security.overrides]`."""

    default_ttl: Seconds = Seconds(900.0)
    """How long an override lasts that says nothing else."""
    max_ttl: Seconds = Seconds(86400.0)
    """The longest that one may last."""
    granters: list[str] = field(factory=list)
    """The principals that may grant; empty for every admin."""


@frozen
class LimitSettings:
    """`[plugins.security.limits]`. 0 is no limit. What is counted for a key is counted for the principal where the
    request came with none."""

    requests_per_minute: int = 0
    """Of one key."""
    agent_requests_per_minute: int = 0
    """For one agent, whoever asks."""
    total_requests_per_minute: int = 0
    """Of all."""
    concurrent_runs: int = 0
    """Of one key."""
    agent_concurrent_runs: int = 0
    """Of one agent, whoever asks."""
    total_concurrent_runs: int = 0
    """Of all."""
    tokens_per_day: int = 0
    """Of one key, as upstreams count them. A run that began within it may end beyond it."""
    failed_authentications_per_minute: int = 60
    """From one address."""
    storage: str = "memory://"
    """Where requests are counted: here, or such as `redis://host:6379` for several gateways together."""


@frozen
class AuditSettings:
    """`[plugins.security.audit]`."""

    fsync: Fsync = "admin"
    """What is forced to the disk when it is written: every record, changes by admins, or nothing."""
    on_full: Literal["serve", "refuse"] = "serve"
    """Whether runs start while no record can be written. Changes by admins are refused either way."""
    max_size: Bytes = Bytes(64 * 1024 * 1024)
    """A file that would grow larger is kept, and a new one begun."""
    keep: int = 0
    """How many full files are kept; 0 keeps all."""


@frozen
class Settings:
    """`[plugins.security]`."""

    allowed_hosts: list[str] = field(factory=list)
    """Names beside those of this machine under which clients may reach the gateway; `*` is any."""
    allowed_origins: list[str] = field(factory=list)
    """Web origins whose pages may change something on the admin pages."""
    admin_keys_may_chat: bool = False
    """Whether an admin key may be used for agents too, as far as the rules let it."""
    keys: dict[str, KeySettings] = field(factory=dict)
    namespaces: dict[str, NamespaceSettings] = field(factory=dict)
    rules: RuleSettings = RuleSettings()
    overrides: OverrideSettings = OverrideSettings()
    limits: LimitSettings = LimitSettings()
    audit: AuditSettings = AuditSettings()
