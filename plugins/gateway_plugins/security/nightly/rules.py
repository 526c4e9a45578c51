"""Rules: too wide, without effect, never used.

It asks no question of the rules; it reads them.
"""

from collections.abc import Iterator

from gateway_plugins.security.nightly.findings import Finding, Severity
from gateway_plugins.security.nightly.situation import Situation, Table, patterns

KINDS = ("agents", "tools", "modules")


def check_rules(situation: Situation) -> Iterator[Finding]:
    """All findings about rules."""
    for place, own in situation.rules():
        for kind in KINDS:
            yield from _too_wide(situation, place, kind, patterns(own, kind))
            yield from _shadowed(place, kind, own)
            yield from _never_matched(situation, place, kind, own)


def covers(general: str, special: str) -> bool:
    """Whether everything that `special` matches is matched by `general`. May miss some, and never claims too much."""
    return _covers(general.casefold().split("/"), special.casefold().split("/"))


def _covers(general: list[str], special: list[str]) -> bool:
    if not general:
        return not special
    first, rest = general[0], general[1:]
    if first == "**":
        return any(_covers(rest, special[start:]) for start in range(1, len(special) + 1))
    if not special or special[0] == "**":
        return False
    return (first == "*" or first == special[0]) and _covers(rest, special[1:])


def _too_wide(situation: Situation, place: str, kind: str, allowed: list[str]) -> Iterator[Finding]:
    for pattern in allowed:
        segments = set(pattern.split("/"))
        if segments <= {"*", "**"}:
            severity = Severity.HIGH if situation.exposed else Severity.LOW
            who = "and others than this machine can reach the gateway" if situation.exposed else "on this machine only"
            yield Finding(
                severity,
                "rule_too_wide",
                f"{place} {kind}",
                f"'{pattern}' allows whatever there is, {who}",
                "name them",
            )


def _shadowed(place: str, kind: str, own: Table) -> Iterator[Finding]:
    allowed, denied = patterns(own, kind), patterns(own, f"deny_{kind}")
    for pattern in allowed:
        deny = next((other for other in denied if covers(other, pattern)), None)
        if deny is not None:
            yield Finding(
                Severity.MEDIUM,
                "rule_shadowed",
                f"{place} {kind}",
                f"'{pattern}' never allows anything: '{deny}' in deny_{kind} is as wide, and goes before",
                "remove one of them",
            )
    for name, listed in ((kind, allowed), (f"deny_{kind}", denied)):
        for index, pattern in enumerate(listed):
            # Of two that are the same, the first one stands.
            others = [o for i, o in enumerate(listed) if i != index and (i < index or not covers(pattern, o))]
            wider = next((other for other in others if covers(other, pattern)), None)
            if wider is not None:
                yield Finding(
                    Severity.LOW,
                    "rule_shadowed",
                    f"{place} {name}",
                    f"'{pattern}' adds nothing to '{wider}'",
                    "remove it",
                )


def _never_matched(situation: Situation, place: str, kind: str, own: Table) -> Iterator[Finding]:
    if not situation.history.covers(situation.unused_days, situation.now):
        return
    for name in (kind, f"deny_{kind}"):
        for pattern in patterns(own, name):
            if pattern.casefold() not in situation.history.patterns:
                yield Finding(
                    Severity.LOW,
                    "rule_never_matched",
                    f"{place} {name}",
                    f"'{pattern}' decided nothing as far as the audit log goes back",
                    "remove it if it is not for later",
                )
