"""Findings about rules: patterns that allow everything, have no effect, or never decided a request."""

from collections.abc import Iterator

from gateway_core import AuditContext, Finding, Segments, Severity, split_name
from gateway_plugins.security.findings.history import History
from gateway_plugins.security.findings.tables import Table, patterns, rule_tables

_KINDS = ("agents", "tools", "modules")


def rule_findings(context: AuditContext, history: History) -> Iterator[Finding]:
    """All findings about rules."""
    for place, table in rule_tables(context):
        for kind in _KINDS:
            yield from _too_wide(context, place, kind, patterns(table, kind))
            yield from _shadowed(place, kind, table)
            if history.covers(context.unused_days, context.now):
                yield from _never_matched(history, place, kind, table)


def covers(general: str, special: str) -> bool:
    """Whether `general` matches every name that `special` matches. `False` can mean that this is unknown."""
    return _covers(split_name(general), split_name(special))


def _covers(general: Segments, special: Segments) -> bool:
    if not general:
        return not special
    first, rest = general[0], general[1:]
    if first == "**":
        return any(_covers(rest, special[start:]) for start in range(1, len(special) + 1))
    if not special or special[0] == "**":
        return False
    return (first == "*" or first == special[0]) and _covers(rest, special[1:])


def _too_wide(context: AuditContext, place: str, kind: str, allowed: list[str]) -> Iterator[Finding]:
    for pattern in allowed:
        if set(pattern.split("/")) <= {"*", "**"}:
            reachable = "is reachable from other hosts" if context.exposed else "is reachable from this machine only"
            yield Finding(
                Severity.HIGH if context.exposed else Severity.LOW,
                "rule_too_wide",
                f"{place} {kind}",
                f"'{pattern}' allows all {kind}, and the gateway {reachable}",
                f"list the allowed {kind}",
            )


def _shadowed(place: str, kind: str, table: Table) -> Iterator[Finding]:
    allowed, denied = patterns(table, kind), patterns(table, f"deny_{kind}")
    for pattern in allowed:
        deny = next((other for other in denied if covers(other, pattern)), None)
        if deny is not None:
            yield Finding(
                Severity.MEDIUM,
                "rule_shadowed",
                f"{place} {kind}",
                f"'{pattern}' has no effect: '{deny}' in deny_{kind} covers it and takes precedence",
                "remove one of them",
            )
    for name, listed in ((kind, allowed), (f"deny_{kind}", denied)):
        for index, pattern in enumerate(listed):
            # Of two equal patterns only the second is redundant.
            others = [o for i, o in enumerate(listed) if i != index and (i < index or not covers(pattern, o))]
            wider = next((other for other in others if covers(other, pattern)), None)
            if wider is not None:
                message = f"'{pattern}' is redundant: '{wider}' covers it"
                yield Finding(Severity.LOW, "rule_shadowed", f"{place} {name}", message, "remove it")


def _never_matched(history: History, place: str, kind: str, table: Table) -> Iterator[Finding]:
    for name in (kind, f"deny_{kind}"):
        for pattern in patterns(table, name):
            if pattern.casefold() not in history.patterns:
                message = f"'{pattern}' decided no request in the audit log"
                hint = "remove it if it is not for later use"
                yield Finding(Severity.LOW, "rule_never_matched", f"{place} {name}", message, hint)
