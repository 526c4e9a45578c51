"""Findings about keys: missing, shared, stored as plain text, without expiry, expiring, expired, disabled or unused."""

import re
from collections import defaultdict
from collections.abc import Iterator

from gateway_core import AuditContext, Finding, Severity
from gateway_plugins.security.findings.history import DAY, History
from gateway_plugins.security.findings.tables import Table, named_tables
from gateway_plugins.security.keys.key_ring import moment

_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def key_findings(context: AuditContext, history: History) -> Iterator[Finding]:
    """All findings about keys."""
    keys = named_tables(context, "keys")
    if context.exposed and all(table.get("disabled") for table in keys.values()):
        yield Finding(
            Severity.CRITICAL,
            "no_keys",
            "[plugins.security.keys]",
            "no key is enabled, and the gateway is reachable from other hosts",
            "agent-gateway keys create NAME",
        )
    by_hash: dict[str, list[str]] = defaultdict(list)
    for name, table in keys.items():
        yield from _one(context, history, _place(name), table)
        by_hash[str(table.get("hash"))].append(name)
    for stored, names in by_hash.items():
        if len(names) > 1 and _HASH.fullmatch(stored):
            yield Finding(
                Severity.HIGH,
                "key_shared",
                ", ".join(_place(name) for name in names),
                "the same key under several names; it is undefined which of the tables applies",
                "create a key for each with `agent-gateway keys create NAME`",
            )


def _one(context: AuditContext, history: History, place: str, table: Table) -> Iterator[Finding]:
    if not _HASH.fullmatch(str(table.get("hash", ""))):
        yield Finding(
            Severity.CRITICAL,
            "key_plain_text",
            place,
            "`hash` is not a SHA-256 hash, and may be the key in plain text",
            "create a new key with `agent-gateway keys create NAME`, and remove this one",
        )
    if table.get("disabled"):
        yield Finding(Severity.INFO, "key_disabled", place, "is disabled", "remove the table if it is no longer needed")
        return
    yield from _expiry(context, place, table.get("expires"), admin=bool(table.get("admin")))
    yield from _use(context, history, place, table)


def _expiry(context: AuditContext, place: str, expires: object, *, admin: bool) -> Iterator[Finding]:
    if expires is None:
        severity = Severity.HIGH if admin else Severity.MEDIUM
        message = f"{'an admin key' if admin else 'a key'} that never expires"
        yield Finding(severity, "key_no_expiry", place, message, 'set `expires = "YYYY-MM-DD"`')
        return
    try:
        ends = moment(str(expires))
    except ValueError:
        hint = 'write it as "2027-01-31"'
        yield Finding(Severity.HIGH, "key_expiry_unreadable", place, "`expires` is not a valid date", hint)
        return
    if ends <= context.now:
        days = int((context.now - ends) / DAY)
        yield Finding(Severity.LOW, "key_expired", place, f"expired {days} days ago", "remove the table, or renew it")
    elif ends <= context.now + context.expiring_days * DAY:
        hours = int((ends - context.now) / 3600)
        left = f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
        yield Finding(Severity.MEDIUM, "key_expiring", place, f"expires in {left}", "agent-gateway keys create NAME")


def _use(context: AuditContext, history: History, place: str, table: Table) -> Iterator[Finding]:
    key_id, days = table.get("id"), context.unused_days
    if not key_id or not history.covers(days, context.now):
        return
    used = history.last_used.get(str(key_id))
    if used is None or context.now - used >= days * DAY:
        period = "in the period of the audit log" if used is None else f"for {int((context.now - used) / DAY)} days"
        hint = "remove it, or set `disabled = true` first"
        yield Finding(Severity.LOW, "key_unused", place, f"was not used {period}", hint)


def _place(name: str) -> str:
    return f"[plugins.security.keys.{name}]"
