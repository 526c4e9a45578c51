"""The one place that decides: what is asked goes by the levels in order, and the first that has an answer gives it.

It asks nobody, logs nothing and changes nothing, so that a preview is the decision itself.

In this order: is the key good, and on its own side (admin or not); an active override; the key's own rules; the tables
of the agent and of its namespaces, nearest first; the global rules; what holds by default. On one level deny beats
allow.
"""

import time
from collections.abc import Callable, Iterator

from attrs import frozen

from gateway_core import Decision
from gateway_plugins.security.access_query import AccessQuery, Overrides
from gateway_plugins.security.patterns import Segments, fold, of_agents
from gateway_plugins.security.policy.compiler import Level, Policy


@frozen
class Step:
    """One level that was looked at."""

    source: str
    """`admin`, `override`, `key`, `namespace`, `global` or `default`."""
    answer: str
    """`allow`, `deny`, or `none` where it says nothing of this."""
    place: str | None = None
    """The table, or the override's id."""
    pattern: str | None = None
    reason: str | None = None


@frozen
class Verdict:
    """A decision, and everything that was looked at on the way to it. The last step is the one that decided."""

    decision: Decision
    chain: tuple[Step, ...]

    @property
    def by_default(self) -> bool:
        """Whether no rule had an answer."""
        return self.decision.source == "default"


class PolicyEvaluator:
    """A policy, ready to be asked.

    Args:
        policy: What the settings say.
        overrides: Asked for what is allowed for a time.
        now: Tells the seconds since the epoch.
    """

    def __init__(self, policy: Policy, overrides: Overrides, now: Callable[[], float] = time.time) -> None:
        self._policy = policy
        self._overrides = overrides
        self._now = now

    def decide(self, question: AccessQuery) -> Verdict:
        """Whether it is allowed, by what, and what else was looked at."""
        chain: list[Step] = []
        override = None
        if (barred := self._barred(question)) is not None:
            chain.append(barred)
        elif (override := self._overrides.deciding(question)) is not None:
            chain.append(Step("override", "allow", override.id, override.pattern))
        else:
            chain.append(Step("override", "none"))
            self._ask_levels(question, chain)
        last = chain[-1]
        allowed = last.answer == "allow"
        decision = Decision(allowed, last.source, last.pattern, last.reason, override.id if override else None)
        return Verdict(decision, tuple(chain))

    def agent(self, question: AccessQuery) -> Verdict:
        """Whether an agent may be used. One whose module is blocked may not, although it was loaded before."""
        module = self.decide(question.of_module)
        return self.agent_alone(question) if module.decision.allowed else module

    def agent_alone(self, question: AccessQuery) -> Verdict:
        """The same, whatever is said of its module. Without keys every agent may be used that nothing denies."""
        verdict = self.decide(question)
        if verdict.by_default and not self._policy.guards:
            return _by_default(verdict, allowed=True, reason="there are no keys")
        return verdict

    def tool(self, question: AccessQuery, *, is_open: bool) -> Verdict:
        """Whether a tool may be called, where no other plugin has an opinion.

        Args:
            question: Of the tool.
            is_open: What holds for the tool by itself.
        """
        verdict = self.decide(question)
        if leaves_to_the_tool(question, verdict):
            return _by_default(verdict, allowed=is_open, reason="the tool's own default")
        return verdict

    def _barred(self, question: AccessQuery) -> Step | None:
        """What not even an override changes: a key that is no good, or an admin key that is to be used for agents."""
        if question.key is None:
            return None
        key = self._policy.keys.by_id.get(question.key)
        if key is None:
            return Step("key", "deny", reason="the key is gone")
        place = f"[plugins.security.keys.{key.name}]"
        if (fault := key.fault(self._now())) is not None:
            return Step("key", "deny", place, None, f"the key is {fault}")
        if key.principal.admin and question.kind in ("agent", "tool") and not self._policy.admin_keys_may_chat:
            return Step("admin", "deny", place, None, "it is an admin key")
        return None

    def _ask_levels(self, question: AccessQuery, chain: list[Step]) -> None:
        names = question.names
        for level in self._levels(question):
            step = _ask(level, question, names)
            chain.append(step)
            if step.answer != "none":
                return
        chain.append(self._default(question))

    def _levels(self, question: AccessQuery) -> Iterator[Level]:
        if question.key is not None and (own := self._policy.key_levels.get(question.key)) is not None:
            yield own
        yield from self._namespaces(question)
        yield self._policy.everywhere

    def _namespaces(self, question: AccessQuery) -> Iterator[Level]:
        tables = self._policy.namespaces
        if not tables:
            return
        agent_id = question.agent_id if question.kind == "tool" else question.subject
        name = "/".join(of_agents(fold(agent_id))) if agent_id else question.namespace.casefold()
        top_level = "/" not in name
        while name:
            if (level := tables.get(name)) is not None:
                yield level
            name = name.rpartition("/")[0]
        if top_level and (level := tables.get("default")) is not None:
            yield level

    def _default(self, question: AccessQuery) -> Step:
        if question.kind == "module":
            return Step("default", "allow")
        if question.kind == "tool" and question.source == "sdk-native":
            for level in (*self._namespaces(question), self._policy.everywhere):
                if level.native_tools is False:
                    return Step("default", "deny", level.place, None, "agents' own tools are refused there")
                if level.native_tools:
                    return Step("default", "allow", level.place)
        return Step("default", "deny", reason="no rule allows it")


def leaves_to_the_tool(question: AccessQuery, verdict: Verdict) -> bool:
    """Whether nothing is said of a tool, so that its own default holds; agents' own may be refused by default."""
    return verdict.by_default and (question.source != "sdk-native" or verdict.decision.allowed)


def _by_default(verdict: Verdict, *, allowed: bool, reason: str) -> Verdict:
    step = Step("default", "allow" if allowed else "deny", reason=reason)
    return Verdict(Decision(allowed, "default", reason=reason), (*verdict.chain[:-1], step))


def _ask(level: Level, question: AccessQuery, names: list[Segments]) -> Step:
    kind = question.kind
    deny = level.deny.get(kind)
    if deny is not None and (pattern := deny.first(names, question.source)) is not None:
        return Step(level.source, "deny", level.place, pattern, "a rule denies it")
    allow = level.allow.get(kind)
    if allow is not None and (pattern := allow.first(names, question.source)) is not None:
        return Step(level.source, "allow", level.place, pattern)
    if kind in level.only:
        return Step(level.source, "deny", level.place, None, "the list there does not have it")
    return Step(level.source, "none", level.place)
