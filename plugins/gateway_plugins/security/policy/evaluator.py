"""Evaluates access queries: levels are evaluated in order of precedence, and the first that does not abstain decides.

Evaluation has no side effects and does no logging, so a preview returns exactly the decision that a request gets.

Order of precedence: validity and type (admin or not) of the key; `block_tools` and `only_tools` of the agent, its
namespaces and the global rules; an active override; the rules of the key; the tables
of the agent and of its namespaces, most specific first; the global rules; the defaults. Within a level, deny takes
precedence over allow.
"""

import time
from collections.abc import Callable, Iterator

from attrs import frozen

from gateway_core import Decision, Segments, split_name
from gateway_plugins.security.access_query import AccessQuery, Overrides, of_agents
from gateway_plugins.security.policy.compiler import Level, Policy

_NOT_LISTED = {
    "key": "not in this key's allow list",
    "namespace": "not in this namespace's allow list",
    "global": "not in the global allow list",
}


@frozen
class Step:
    """The result of one level."""

    source: str
    """`admin`, `override`, `key`, `namespace`, `global` or `default`."""
    answer: str
    """`allow`, `deny`, or `none` if the level abstains."""
    place: str | None = None
    """The settings table, or the id of the override."""
    pattern: str | None = None
    reason: str | None = None


@frozen
class Verdict:
    """A decision and the evaluated levels. The last step decided."""

    decision: Decision
    chain: tuple[Step, ...]

    @property
    def by_default(self) -> bool:
        """Whether no rule matched."""
        return self.decision.source == "default"


class PolicyEvaluator:
    """Evaluates queries against a policy.

    Args:
        policy: The compiled settings.
        overrides: The active overrides.
        now: Returns the seconds since the epoch.
    """

    def __init__(self, policy: Policy, overrides: Overrides, now: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._overrides = overrides
        self._now = now

    def decide(self, query: AccessQuery) -> Verdict:
        """Evaluate a query."""
        chain: list[Step] = []
        override = None
        if (key_refusal := self._key_refusal(query)) is not None:
            chain.append(key_refusal)
        elif (block := self._block(query)) is not None:
            chain.append(block)
        elif (override := self._overrides.deciding(query)) is not None:
            chain.append(Step("override", "allow", override.id, override.pattern))
        else:
            chain.append(Step("override", "none"))
            self._evaluate_levels(query, chain)
        last = chain[-1]
        allowed = last.answer == "allow"
        decision = Decision(allowed, last.source, last.pattern, last.reason, override.id if override else None)
        return Verdict(decision, tuple(chain))

    def agent(self, query: AccessQuery) -> Verdict:
        """Evaluate whether an agent may be used. A loaded agent is denied, too, if its module is blocked now."""
        module = self.decide(query.of_module)
        return self.agent_ignoring_module(query) if module.decision.allowed else module

    def agent_ignoring_module(self, query: AccessQuery) -> Verdict:
        """Evaluate an agent without the rules for its module. Without keys, agents are allowed by default."""
        verdict = self.decide(query)
        if verdict.by_default and not self._policy.guards:
            return _by_default(verdict, allowed=True, reason="no keys are configured")
        return verdict

    def tool(self, query: AccessQuery, *, is_open: bool) -> Verdict:
        """Evaluate whether a tool may be called, if all other plugins abstain.

        Args:
            query: A query of kind `tool`.
            is_open: The tool's own default.
        """
        verdict = self.decide(query)
        if defers_to_tool_default(query, verdict):
            return _by_default(verdict, allowed=is_open, reason="the tool's own default")
        return verdict

    def _key_refusal(self, query: AccessQuery) -> Step | None:
        """A denial that overrides cannot lift: an invalid key, or an admin key used for agents."""
        if query.key is None:
            return None
        key = self._policy.keys.by_id.get(query.key)
        if key is None:
            return Step("key", "deny", reason="the key does not exist")
        place = f"[plugins.security.keys.{key.name}]"
        if (fault := key.fault(self._now())) is not None:
            return Step("key", "deny", place, None, f"the key is {fault}")
        if key.principal.admin and query.kind in ("agent", "tool") and not self._policy.admin_keys_may_chat:
            return Step("admin", "deny", place, None, "admin keys may not use agents")
        return None

    def _block(self, query: AccessQuery) -> Step | None:
        """A denial of a tool that no rule and no override can lift."""
        if query.kind != "tool":
            return None
        names = query.names
        for level in (*self._namespaces(query), self._policy.global_level):
            if level.block is not None and (pattern := level.block.first(names, query.source)) is not None:
                return Step(level.source, "deny", level.place, pattern, "blocked by block_tools")
            if level.only_tools is not None and level.only_tools.first(names, query.source) is None:
                return Step(level.source, "deny", level.place, None, "not in only_tools")
        return None

    def _evaluate_levels(self, query: AccessQuery, chain: list[Step]) -> None:
        names = query.names
        for level in self._levels(query):
            step = _evaluate_level(level, query, names)
            chain.append(step)
            if step.answer != "none":
                return
        chain.append(self._default(query))

    def _levels(self, query: AccessQuery) -> Iterator[Level]:
        if query.key is not None and (own := self._policy.key_levels.get(query.key)) is not None:
            yield own
        yield from self._namespaces(query)
        yield self._policy.global_level

    def _namespaces(self, query: AccessQuery) -> Iterator[Level]:
        tables = self._policy.namespaces
        if not tables:
            return
        agent_id = query.agent_id if query.kind == "tool" else query.subject
        name = "/".join(of_agents(split_name(agent_id))) if agent_id else ""
        top_level = "/" not in name
        while name:
            if (level := tables.get(name)) is not None:
                yield level
            name = name.rpartition("/")[0]
        if top_level and (level := tables.get("default")) is not None:
            yield level

    def _default(self, query: AccessQuery) -> Step:
        if query.kind == "module":
            return Step("default", "allow")
        if query.kind == "tool":
            for level in (*self._namespaces(query), self._policy.global_level):
                if level.only_tools is not None:  # it matches, or the tool would be blocked
                    return Step(level.source, "allow", level.place, level.only_tools.first(query.names, query.source))
                if query.source in level.closed:
                    return Step(level.source, "deny", level.place, None, f"source '{query.source}' needs a rule")
                if query.source == "sdk-native" and level.native_tools is not None:
                    answer = "allow" if level.native_tools else "deny"
                    reason = None if level.native_tools else "the table refuses agents' own tools"
                    return Step("default", answer, level.place, None, reason)
        return Step("default", "deny", reason="not allowed by any rule")


def defers_to_tool_default(query: AccessQuery, verdict: Verdict) -> bool:
    """Whether no rule matches a tool, so that its own default applies; `native_tools` can refuse agents' own tools."""
    return verdict.by_default and (query.source != "sdk-native" or verdict.decision.allowed)


def _by_default(verdict: Verdict, *, allowed: bool, reason: str) -> Verdict:
    step = Step("default", "allow" if allowed else "deny", reason=reason)
    return Verdict(Decision(allowed, "default", reason=reason), (*verdict.chain[:-1], step))


def _evaluate_level(level: Level, query: AccessQuery, names: list[Segments]) -> Step:
    kind = query.kind
    deny = level.deny.get(kind)
    if deny is not None and (pattern := deny.first(names, query.source)) is not None:
        return Step(level.source, "deny", level.place, pattern, "denied by a rule")
    allow = level.allow.get(kind)
    if allow is not None and (pattern := allow.first(names, query.source)) is not None:
        return Step(level.source, "allow", level.place, pattern)
    if kind in level.only:
        return Step(level.source, "deny", level.place, None, _NOT_LISTED[level.source])
    return Step(level.source, "none", level.place)
