"""Who may use which agents, modules and tools: keys and rules, and a guard against foreign web pages.

It decides and does not announce; the core announces what took effect. Without a key it lets everybody in, and the core
then serves loopback only.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gateway_core import (
    AgentEntry,
    ConfigError,
    Decision,
    Gateway,
    LoadError,
    Principal,
    RunContext,
    ToolInfo,
    hookimpl,
)
from gateway_plugins.security.browser import Allowed, BrowserGuard
from gateway_plugins.security.credentials import presented, refused
from gateway_plugins.security.expiry import ExpiryWarnings, expiring
from gateway_plugins.security.keys import Key
from gateway_plugins.security.planes import refusal
from gateway_plugins.security.policy import Policy, read_policy
from gateway_plugins.security.questions import NoOverrides, Overrides, Question
from gateway_plugins.security.rules import Rules, Verdict
from gateway_plugins.security.settings import Settings

if TYPE_CHECKING:
    import click
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import BaseRoute

logger = logging.getLogger(__name__)

# Nobody's key: whoever loads modules is the gateway itself.
_GATEWAY = "gateway"
_EXPIRY_LOOK_SECONDS = 3600.0


class Security:
    """The plugin `security`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._overrides: Overrides = NoOverrides()
        self._warnings = ExpiryWarnings()
        self._settings = config
        self._policy: Policy
        self._rules: Rules
        self._allowed: Allowed
        self._take(config, read_policy(config))

    @property
    def guards(self) -> bool:
        """Whether there are keys, so that somebody can be kept out."""
        return self._policy.guards

    def reconfigure(self, config: Settings) -> None:
        """Take other settings, all at once, from the next question on.

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
        self._take(config, policy)
        self._warnings.look(policy.keys.by_id.values(), time.time())

    def _take(self, config: Settings, policy: Policy) -> None:
        self._settings = config
        self._allowed = Allowed.of(config.allowed_hosts, config.allowed_origins)
        self._policy, self._rules = policy, Rules(policy, self._overrides)

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
        if key is None:
            raise refused()
        if (fault := key.fault(time.time())) is not None:
            logger.info("the key %s was refused: it is %s", key.id, fault)
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
        # A module may have been loaded before the rules blocked it.
        blocked = self._module(entry)
        if not blocked.decision.allowed:
            return blocked.decision
        verdict = self._rules.decide(Question("agent", entry.id, principal.id, principal.key, entry.namespace))
        decision = verdict.decision
        return decision if self._policy.guards or (not decision.allowed and not verdict.by_default) else None

    @hookimpl
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """What the rules say; what holds for a tool by itself is not decided here, but that agents' own are refused."""
        namespace = tool.agent_id.rpartition("/")[0] or "default"
        name = tool.name.replace("__", "/") if tool.source == "gateway" else tool.name
        question = Question(
            "tool",
            name,
            run.principal.id,
            run.principal.key,
            namespace,
            tool.agent_id,
            tool.source,
            tool.server,
        )
        verdict = self._rules.decide(question)
        if verdict.by_default and (tool.source != "sdk-native" or verdict.decision.allowed):
            return None
        return verdict.decision

    @hookimpl
    def admit_agent(self, entry: AgentEntry) -> None:
        """Keep out what the rules block; nothing of it has run yet."""
        verdict = self._module(entry)
        if not verdict.decision.allowed:
            last = verdict.chain[-1]
            raise LoadError(
                "the policy blocks this module",
                source=entry.source,
                hint=f"{last.place}: {last.pattern or last.reason}",
                code="security",
            )

    def _module(self, entry: AgentEntry) -> Verdict:
        return self._rules.decide(Question("module", entry.id, _GATEWAY, namespace=entry.namespace))

    @hookimpl
    def admin_routes(self) -> "Iterable[BaseRoute]":
        """`/security/preview`."""
        from starlette.routing import Route

        from gateway_plugins.security.preview import Preview

        preview = Preview(lambda: (self._policy, self._rules), lambda: self._gateway.catalog)
        return [Route("/security/preview", preview.answer, methods=["POST"])]

    @hookimpl
    def middleware(self) -> "Iterable[Middleware]":
        """The guard against foreign web pages."""
        from starlette.middleware import Middleware

        return [Middleware(BrowserGuard, allowed=lambda: self._allowed)]

    @hookimpl
    def commands(self) -> "Iterable[click.Command]":
        """`agent-gateway keys`."""
        from gateway_plugins.security.commands import keys_command

        return [keys_command(self._settings.keys)]

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Look each hour which keys are about to expire."""
        task = asyncio.create_task(self._watch_expiry())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch_expiry(self) -> None:
        while True:
            self._warnings.look(self._policy.keys.by_id.values(), time.time())
            await asyncio.sleep(_EXPIRY_LOOK_SECONDS)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The keys, without what would help to use one, and how many there are of each state."""
        now = time.time()
        keys = [_shown(key, now) for key in self._policy.keys.by_id.values()]
        return {"guards": self.guards, "keys": keys, "namespaces": list(self._settings.namespaces)}


def _shown(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "principal": key.principal.id,
        "admin": key.principal.admin,
        "expires": key.expires,
        "state": key.fault(now) or ("expiring" if expiring(key, now) else "good"),
    }
