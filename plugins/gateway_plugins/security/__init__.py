"""Authenticates clients and authorizes agents, modules and tools: keys, rules, overrides, limits and the audit log.

It trusts no client and no agent. It makes decisions and does not announce them; the core announces the decisions that
took effect. Without keys every client is admitted, and the core then listens on loopback only.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from gateway_core import (
    AgentEntry,
    AuditContext,
    Catalog,
    ConfigError,
    Decision,
    DecisionMade,
    Finding,
    Gateway,
    LoadError,
    Measurement,
    Outcome,
    Principal,
    RunContext,
    ToolInfo,
    hookimpl,
)
from gateway_plugins.security.access_query import GATEWAY, AccessQuery
from gateway_plugins.security.browser_guard import Allowed, BrowserGuard
from gateway_plugins.security.components import Components
from gateway_plugins.security.host_names import AllowedHosts, RefusedHosts
from gateway_plugins.security.keys.admin_keys import refusal
from gateway_plugins.security.keys.credentials import invalid_key, presented
from gateway_plugins.security.keys.expiry import ExpiryWarnings, expiring
from gateway_plugins.security.keys.key_ring import Key, make_key
from gateway_plugins.security.keys.key_tables import key_table, new_key_text, save
from gateway_plugins.security.limits.admission import RateLimitHeaders
from gateway_plugins.security.policy.compiler import Policy, read_policy
from gateway_plugins.security.policy.evaluator import PolicyEvaluator, defers_to_tool_default
from gateway_plugins.security.settings import Settings
from gateway_plugins.security.unmatched import unknown_principals, unmatched

if TYPE_CHECKING:
    import click
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import BaseRoute

logger = logging.getLogger(__name__)

_EXPIRY_CHECK_SECONDS = 3600.0


class Security:
    """The plugin `security`."""

    Config = Settings
    access_hint = "create a key with `agent-gateway keys create NAME`"

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._parts = Components(gateway, config)
        self._warnings = ExpiryWarnings()
        self._unmatched: frozenset[str] = frozenset()
        self._settings = config
        self._policy: Policy
        self._rules: PolicyEvaluator
        self._allowed: Allowed
        self._refused = RefusedHosts(gateway.config.file)
        self._apply(config, read_policy(config))

    @property
    def guards(self) -> bool:
        """Whether any key is configured, so that clients can be rejected."""
        return self._policy.guards

    def create_first_key(self) -> str:
        """Create a key for all agents, add it to the configuration file, and return the message for the operator.

        Raises:
            ConfigError: The file cannot be written.
        """
        key, file = make_key(), self._gateway.config.file
        save(key_table("first", key), file)
        return new_key_text(key, file)

    async def reconfigure(self, config: Settings) -> None:
        """Apply new settings, all at once, from the next request on. Changed limits and audit settings need a restart.

        Raises:
            ConfigError: The settings are invalid, or remove the last key; the old settings stay in effect.
        """
        policy = read_policy(config)
        if self._policy.guards and not policy.guards:
            raise ConfigError(
                "the new settings remove the last key, and a running gateway does not open to every client",
                source="[plugins.security.keys]",
                hint=f"{self.access_hint}, or restart the gateway to serve without keys",
            )
        if (config.limits, config.audit) != (self._settings.limits, self._settings.audit):
            logger.warning(
                "changes to [plugins.security.limits] and [plugins.security.audit] take effect after a restart"
            )
        if _restricts(config):
            await self._parts.open()
        self._apply(config, policy)
        self._warnings.check(policy.keys.by_id.values(), time.time())

    def _apply(self, config: Settings, policy: Policy) -> None:
        self._allowed = Allowed.of(AllowedHosts(config.allowed_hosts, policy.guards), config.allowed_origins)
        self._settings = config
        self._parts.overrides.settings = config.overrides
        self._policy, self._rules = policy, PolicyEvaluator(policy, self._parts.overrides)

    @hookimpl
    async def authenticate(self, request: "Request") -> Principal | None:
        """Return the principal of the request's key; `None` without configured keys or without a key in the request."""
        policy = self._policy
        if not policy.guards:
            return None
        text = presented(request.scope["headers"])
        if text is None:
            return None
        key = policy.keys.find(text)
        fault = key.fault(time.time()) if key is not None else None
        if key is None or fault is not None:
            if key is not None:
                logger.info("rejected the key %s: %s", key.id, fault)
            await self._parts.limits.failed_authentication(request.client.host if request.client else "unknown")
            raise invalid_key()
        return key.principal

    @hookimpl
    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """Deny a request that the admin key, or its scopes, do not cover."""
        key = self._policy.keys.by_id.get(principal.key or "")
        if key is None:
            return None
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return refusal(key, request.method, path, may_chat=self._policy.admin_keys_may_chat)

    @hookimpl
    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision | None:
        """Evaluate the rules. Without keys only a denial is returned; otherwise the plugin abstains."""
        query = AccessQuery("agent", entry.id, principal.id, principal.key)
        decision = self._rules.agent(query).decision
        return decision if self._policy.guards or not decision.allowed else None

    @hookimpl
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """Evaluate the rules. The plugin abstains where the tool's own default applies; `native_tools` can refuse."""
        query = AccessQuery(
            "tool", tool.name, run.principal.id, run.principal.key, tool.agent_id, tool.source, tool.server
        )
        verdict = self._rules.decide(query)
        return None if defers_to_tool_default(query, verdict) else verdict.decision

    @hookimpl
    def admit_agent(self, entry: AgentEntry) -> None:
        """Reject a module that the rules block, before any of its code runs."""
        verdict = self._rules.decide(AccessQuery("module", entry.id, GATEWAY))
        if not verdict.decision.allowed:
            last = verdict.chain[-1]
            raise LoadError(
                "the policy blocks this module",
                source=entry.source,
                hint=f"{last.place}: {last.pattern or last.reason}",
                code="security",
            )

    @hookimpl
    def on_catalog(self, catalog: Catalog, watched: Sequence[Path]) -> None:
        """Report the settings without effect, each once until that changes."""
        renderings = self._gateway.config.clients.principals
        errors = [*unmatched(self._settings, catalog), *unknown_principals(self._settings, renderings)]
        found = {str(error): error for error in errors}
        for text, error in found.items():
            if text not in self._unmatched:
                self._gateway.report(error)
        self._unmatched = frozenset(found)

    @hookimpl
    def admission(self, run: RunContext, entry: AgentEntry) -> AbstractAsyncContextManager[None]:
        """Hold a run slot within the limits, unless the audit log must be written and cannot be."""
        self._parts.audit.check()
        return self._parts.limits.admission(_caller(run.principal), run.agent_id)

    @hookimpl
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Count the tokens that the run used."""
        self._parts.limits.add_usage(_caller(run.principal), outcome.usage)

    @hookimpl
    def on_decision(self, made: DecisionMade) -> None:
        """Write the decision to the audit log, if the settings can refuse any request."""
        if self._parts.is_open:
            self._parts.audit.decision(made)

    @hookimpl
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """`/security/preview` and `/security/override`."""
        from gateway_plugins.security.overrides.routes import OverrideRoutes
        from gateway_plugins.security.policy_preview import preview_route

        async def granter(request: "Request") -> Principal:
            if request.method != "GET":
                await self._parts.ready_for_changes()
            principal: Principal = request.state.principal
            return principal

        preview = preview_route(lambda: (self._policy, self._rules), lambda: self._gateway.catalog)
        overrides = OverrideRoutes(self._parts.overrides, granter, self._parts.audit.settled)
        return [preview, *overrides.routes]

    @hookimpl
    def middleware(self) -> "Iterable[Middleware]":
        """The guard against cross-origin web pages, and the rate limit headers."""
        from starlette.middleware import Middleware

        return [
            Middleware(BrowserGuard, allowed=lambda: self._allowed, refused=self._refused),
            Middleware(RateLimitHeaders),
        ]

    @hookimpl
    def commands(self) -> "Iterable[click.Command]":
        """`agent-gateway keys` and `agent-gateway audit verify`."""
        from gateway_plugins.security.audit.command import audit_command
        from gateway_plugins.security.keys.commands import keys_command

        return [keys_command(self._settings.keys, self._gateway.config.file), audit_command()]

    @hookimpl
    def audit_findings(self, context: AuditContext) -> Iterable[Finding]:
        """Findings about keys, rules, active overrides and the audit log."""
        from gateway_plugins.security.findings import security_findings

        return security_findings(context)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Keep the files open, and check every hour for keys that are about to expire."""
        if _restricts(self._settings):
            await self._parts.open()
        task = asyncio.create_task(self._watch_expiry())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._parts.close()

    async def _watch_expiry(self) -> None:
        while True:
            self._warnings.check(self._policy.keys.by_id.values(), time.time())
            await asyncio.sleep(_EXPIRY_CHECK_SECONDS)

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Number of expiring and expired keys, number of active overrides, and the state of the audit log."""
        now = time.time()
        keys = list(self._policy.keys.by_id.values())
        for state, count in (
            ("expiring", sum(expiring(key, now) and key.fault(now) is None for key in keys)),
            ("expired", sum(key.fault(now) == "expired" for key in keys)),
        ):
            name, text = "agent_gateway.security.keys", "Keys that expire within seven days or have expired."
            yield Measurement(name, count, "{key}", text, {"state": state})
        overrides = len(self._parts.overrides.active())
        yield Measurement("agent_gateway.security.overrides", overrides, "{override}", "Active overrides.")
        failed = int(self._parts.audit.failed)
        yield Measurement(
            "agent_gateway.security.audit.failed", failed, "1", "1 while the audit log cannot be written, else 0."
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The keys without their hashes, and the state of overrides, runs and the audit log."""
        now = time.time()
        keys = [_key_facts(key, now) for key in self._policy.keys.by_id.values()]
        return {
            "banner": {"hosts": self._allowed.hosts.describe()} if self.guards else {},
            "guards": self.guards,
            "keys": keys,
            "namespaces": list(self._settings.namespaces),
            "overrides": len(self._parts.overrides.active()),
            "running": self._parts.limits.running(),
            "audit_log": str(self._parts.audit.path) if self._parts.audit.path else None,
            "audit_failed": self._parts.audit.failed,
        }


def _restricts(settings: Settings) -> bool:
    """Whether the settings can refuse any request."""
    return evolve(settings, allowed_hosts=[], allowed_origins=[]) != Settings()


def _caller(principal: Principal) -> str:
    return principal.key or principal.id


def _key_facts(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "principal": key.principal.id,
        "admin": key.principal.admin,
        "expires": key.expires,
        "state": key.fault(now) or ("expiring" if expiring(key, now) else "good"),
    }
