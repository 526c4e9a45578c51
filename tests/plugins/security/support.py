"""Policies and keys for the tests of the plugin `security`."""

from typing import Any

from gateway_plugins.security import Security
from gateway_plugins.security.access_query import AccessQuery, Override, Overrides
from gateway_plugins.security.keys.key_ring import NewKey, make_key
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.policy.compiler import Policy, read_policy
from gateway_plugins.security.policy.evaluator import PolicyEvaluator
from gateway_plugins.security.settings import OverrideSettings, Settings

from gateway_core.config.settings import load_config
from gateway_core.testing import GatewayInMemory
from gateway_core.tools.patterns import PatternSet, parse_pattern, split_name


def settings(table: dict[str, Any]) -> Settings:
    """Structure a table as the gateway does."""
    return load_config(environ={}).structure(table, Settings, "plugins", "security")


def plugin(g: GatewayInMemory) -> Security:
    """The plugin of a gateway."""
    [found] = [p for p in g.gateway.hooks._guards if isinstance(p, Security)]
    return found


def policy(table: dict[str, Any]) -> Policy:
    return read_policy(settings(table))


def rules(table: dict[str, Any], overrides: Overrides | None = None, now: float = 1_800_000_000.0) -> PolicyEvaluator:
    return PolicyEvaluator(
        policy(table), overrides or OverrideManager(OverrideSettings(), None, lambda *_: None), lambda: now
    )


def key_table(key: NewKey | None = None, **more: Any) -> dict[str, Any]:
    """`[plugins.security.keys.NAME]`."""
    key = key or make_key()
    return {"id": key.id, "hash": key.hash, **more}


def matches(pattern: str, subject: str) -> bool:
    """Whether a pattern, as written, matches a name."""
    return PatternSet([(pattern, parse_pattern(pattern))]).first(split_name(subject)) is not None


class OneOverride:
    """Implements `Overrides` with a single override for one subject and one principal."""

    def __init__(self, kind: str, subject: str, principal: str) -> None:
        self.override = Override("ovr_1", kind, subject, principal, "a test", "root", 0.0, 1.0)

    def deciding(self, query: AccessQuery) -> Override | None:
        ours = (self.override.kind, self.override.pattern, self.override.principal)
        return self.override if (query.kind, query.subject, query.principal) == ours else None
