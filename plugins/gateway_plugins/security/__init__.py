"""Who may use which agents, modules and tools: keys, rules, overrides, limits, and the record of what was decided.

It trusts no client and no agent. It decides and does not announce; the core announces what took effect. Without a key
it lets everybody in, and the core then serves loopback only.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import evolve

from gateway_core import (
    AgentEntry,
    AuditContext,
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
from gateway_plugins.security.keys.admin_keys import refusal
from gateway_plugins.security.keys.credentials import presented, refused
from gateway_plugins.security.keys.expiry import ExpiryWarnings, expiring
from gateway_plugins.security.keys.key_ring import Key
from gateway_plugins.security.policy.compiler import Policy, read_policy
from gateway_plugins.security.policy.evaluator import PolicyEvaluator, leaves_to_the_tool
from gateway_plugins.security.settings import Settings

if TYPE_CHECKING:
    import click
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import BaseRoute

logger = logging.getLogger(__name__)

_EXPIRY_LOOK_SECONDS = 3600.0


class Security:
    """The plugin `security`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._parts = Components(gateway, config)
        self._warnings = ExpiryWarnings()
        self._settings = config
        self._policy: Policy
        self._rules: PolicyEvaluator
        self._allowed: Allowed
        self._take(config, read_policy(config))

    @property
    def guards(self) -> bool:
        """Whether there are keys, so that somebody can be kept out."""
        return self._policy.guards

    async def reconfigure(self, config: Settings) -> None:
        """Take other settings, all at once, from the next question on. Other limits, and other settings of the audit
        log, take a restart.

        Raises:
            ConfigError: They are wrong, or have no key left; the old ones stay in force.
        """
        policy = read_policy(config)
        if self._policy.guards and not policy.guards:
            raise ConfigError(
                "there is no key left, and a gateway that runs is not opened to everybody",
                source="[plugins.security.keys]",
                hint="make one with `agent-gateway keys create NAME`, or restart the gateway to serve without keys",
            )
        if (config.limits, config.audit) != (self._settings.limits, self._settings.audit):
            logger.warning("[plugins.security.limits] and [plugins.security.audit] take effect at the next start")
        if _says_something(config):
            await self._parts.open()
        self._take(config, policy)
        self._warnings.look(policy.keys.by_id.values(), time.time())

    def _take(self, config: Settings, policy: Policy) -> None:
        self._settings = config
        self._allowed = Allowed.of(config.allowed_hosts, config.allowed_origins)
        self._parts.overrides.settings = config.overrides
        self._policy, self._rules = policy, PolicyEvaluator(policy, self._parts.overrides)

    @hookimpl
    async def authenticate(self, request: "Request") -> Principal | None:
        """The principal of the request's key; nobody where there are no keys, or the request has none."""
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
                logger.info("the key %s was refused: it is %s", key.id, fault)
            await self._parts.failed_authentication(request.client.host if request.client else "unknown")
            raise refused()
        return key.principal

    @hookimpl
    async def authorize_request(self, principal: Principal, request: "Request") -> Decision | None:
        """Whether an admin key may be used for this request."""
        key = self._policy.keys.by_id.get(principal.key or "")
        if key is None:
            return None
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        return refusal(key, request.method, path, may_chat=self._policy.admin_keys_may_chat)

    @hookimpl
    async def authorize(self, principal: Principal, entry: AgentEntry) -> Decision | None:
        """What the rules say. Without keys, what they deny is denied, and the rest is not decided here."""
        question = AccessQuery("agent", entry.id, principal.id, principal.key, entry.namespace)
        decision = self._rules.agent(question).decision
        return decision if self._policy.guards or not decision.allowed else None

    @hookimpl
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """What the rules say; what holds for a tool by itself is not decided here, but that agents' own are refused."""
        namespace = tool.agent_id.rpartition("/")[0] or "default"
        question = AccessQuery(
            "tool",
            tool.name,
            run.principal.id,
            run.principal.key,
            namespace,
            tool.agent_id,
            tool.source,
            tool.server,
        )
        verdict = self._rules.decide(question)
        return None if leaves_to_the_tool(question, verdict) else verdict.decision

    @hookimpl
    def admit_agent(self, entry: AgentEntry) -> None:
        """Keep out what the rules block; nothing of it has run yet."""
        verdict = self._rules.decide(AccessQuery("module", entry.id, GATEWAY, namespace=entry.namespace))
        if not verdict.decision.allowed:
            last = verdict.chain[-1]
            raise LoadError(
                "the policy blocks this module",
                source=entry.source,
                hint=f"{last.place}: {last.pattern or last.reason}",
                code="security",
            )

    @hookimpl
    def admission(self, run: RunContext, entry: AgentEntry) -> AbstractAsyncContextManager[None]:
        """A place among the runs that the limits allow."""
        return self._parts.admission(run)

    @hookimpl
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Count the tokens that it used."""
        self._parts.spent(run, outcome.usage)

    @hookimpl
    def on_decision(self, made: DecisionMade) -> None:
        """Put it on record, where anything is refused to anybody."""
        self._parts.decided(made)

    @hookimpl
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """`/security/preview` and `/security/override`."""
        from starlette.routing import Route

        from gateway_plugins.security.overrides.routes import override_routes
        from gateway_plugins.security.preview import Preview

        async def granter(request: "Request") -> Principal:
            if request.method != "GET":
                await self._parts.ready_for_changes()
            principal: Principal = request.state.principal
            return principal

        preview = Preview(lambda: (self._policy, self._rules), lambda: self._gateway.catalog)
        overrides = override_routes(self._parts.overrides, granter, self._parts.audit.settled)
        return [Route("/security/preview", preview.answer, methods=["POST"]), *overrides]

    @hookimpl
    def middleware(self) -> "Iterable[Middleware]":
        """The guard against foreign web pages, and the headers that tell what is left of limits."""
        from starlette.middleware import Middleware

        from gateway_plugins.security.limits.admission import HeadersInReach

        return [Middleware(BrowserGuard, allowed=lambda: self._allowed), Middleware(HeadersInReach)]

    @hookimpl
    def commands(self) -> "Iterable[click.Command]":
        """`agent-gateway keys` and `agent-gateway audit verify`."""
        from gateway_plugins.security.audit.command import audit_command
        from gateway_plugins.security.keys.commands import keys_command

        return [keys_command(self._settings.keys), audit_command()]

    @hookimpl
    def audit_findings(self, context: AuditContext) -> Iterable[Finding]:
        """Findings about keys, rules, active overrides and the audit log."""
        from gateway_plugins.security.findings import security_findings

        return security_findings(context)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Hold what is kept, and look each hour which keys are about to expire."""
        if _says_something(self._settings):
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
            self._warnings.look(self._policy.keys.by_id.values(), time.time())
            await asyncio.sleep(_EXPIRY_LOOK_SECONDS)

    @hookimpl
    def measurements(self) -> Iterable[Measurement]:
        """Keys that need an operator, overrides in force, and whether decisions are recorded."""
        now = time.time()
        keys = list(self._policy.keys.by_id.values())
        for state, count in (
            ("expiring", sum(expiring(key, now) and key.fault(now) is None for key in keys)),
            ("expired", sum(key.fault(now) == "expired" for key in keys)),
        ):
            name, told = "agent_gateway.security.keys", "Keys that expire within seven days, or have."
            yield Measurement(name, count, "{key}", told, {"state": state})
        overrides = len(self._parts.overrides.active())
        yield Measurement("agent_gateway.security.overrides", overrides, "{override}", "Overrides that are in force.")
        failed = int(self._parts.audit.failed)
        yield Measurement(
            "agent_gateway.security.audit.failed", failed, "1", "Whether the audit log cannot be written."
        )

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The keys, without what would help to use one, and how many there are of each state."""
        now = time.time()
        keys = [_shown(key, now) for key in self._policy.keys.by_id.values()]
        return {
            "guards": self.guards,
            "keys": keys,
            "namespaces": list(self._settings.namespaces),
            "overrides": len(self._parts.overrides.active()),
            "running": self._parts.running(),
            "audit_log": str(self._parts.audit.path) if self._parts.audit.path else None,
            "audit_failed": self._parts.audit.failed,
        }


def _says_something(settings: Settings) -> bool:
    """Whether anything can be refused to anybody."""
    return evolve(settings, allowed_hosts=[], allowed_origins=[]) != Settings()


def _shown(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "principal": key.principal.id,
        "admin": key.principal.admin,
        "expires": key.expires,
        "state": key.fault(now) or ("expiring" if expiring(key, now) else "good"),
    }
