"""`[plugins.security]`: keys, rules, and who may call from a browser.

It holds values as they are written; what they mean is in `policy.py`.
"""

from typing import Literal

from attrs import field, frozen


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
