"""Keys and other secrets: in plain text, for ever, over, about to be, unused.

It never shows a secret, only where it is.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

from gateway_plugins.security.nightly.findings import Finding, Severity
from gateway_plugins.security.nightly.situation import DAY, Situation, Table, moment

_SECRET_NAME = re.compile(r"(?:.*[_-])?(?:key|token|secret|password|authorization|credentials?|cookie)", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"(?:agw_[A-Za-z0-9]{8}_|sk-|Bearer )[\w.-]{16,}")
_SHORT = 12
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_ENV = '{ env = "NAME" } or { file = "path" } keeps it out of the file'


def check_keys(situation: Situation) -> Iterator[Finding]:
    """All findings about keys."""
    yield from _plain_text(situation.tables)
    if situation.exposed and not any(not own.get("disabled") for own in situation.keys.values()):
        yield Finding(
            Severity.CRITICAL,
            "no_keys",
            "[plugins.security.keys]",
            "others than this machine can reach the gateway, and there is no key",
            "agent-gateway keys create NAME",
        )
    same: dict[str, list[str]] = defaultdict(list)
    for name, own in situation.keys.items():
        yield from _one(situation, name, own)
        same[str(own.get("hash"))].append(name)
    for stored, names in same.items():
        if len(names) > 1 and _HASH.fullmatch(stored):
            yield Finding(
                Severity.HIGH,
                "key_shared",
                ", ".join(_place(name) for name in names),
                "these are one and the same key, so what it may do depends on which is found",
                "make one for each with `agent-gateway keys create NAME`",
            )


def _one(situation: Situation, name: str, own: Table) -> Iterator[Finding]:
    place, admin = _place(name), bool(own.get("admin"))
    if not _HASH.fullmatch(str(own.get("hash", ""))):
        yield Finding(
            Severity.CRITICAL,
            "key_plain_text",
            place,
            "`hash` is none, so it may be the key itself",
            "make a new key with `agent-gateway keys create NAME`, and remove this one",
        )
    if own.get("disabled"):
        yield Finding(
            Severity.INFO, "key_disabled", place, "is disabled", "remove its table when it is not needed again"
        )
        return
    yield from _expiry(situation, place, own.get("expires"), admin)
    yield from _use(situation, place, own)


def _expiry(situation: Situation, place: str, expires: object, admin: bool) -> Iterator[Finding]:
    if expires is None:
        severity = Severity.HIGH if admin else Severity.MEDIUM
        kind = "an admin key" if admin else "a key"
        yield Finding(severity, "key_no_expiry", place, f"{kind} that never expires", 'set `expires = "YYYY-MM-DD"`')
        return
    ends = moment(expires)
    if ends is None:
        yield Finding(Severity.HIGH, "key_expiry_unreadable", place, "`expires` is no time", 'such as "2027-01-31"')
    elif ends <= situation.now:
        days = int((situation.now - ends) / DAY)
        yield Finding(Severity.LOW, "key_expired", place, f"expired {days} days ago", "remove its table, or renew it")
    elif ends <= situation.now + situation.expiring_days * DAY:
        hours = int((ends - situation.now) / 3600)
        left = f"{hours // 24} days" if hours >= 48 else f"{hours} hours"
        yield Finding(Severity.MEDIUM, "key_expiring", place, f"expires in {left}", "agent-gateway keys create NAME")


def _use(situation: Situation, place: str, own: Table) -> Iterator[Finding]:
    key_id, days = own.get("id"), situation.unused_days
    if not key_id or not situation.history.covers(days, situation.now):
        return
    used = situation.history.last_used.get(str(key_id))
    if used is None or situation.now - used >= days * DAY:
        when = "as far as the audit log goes back" if used is None else f"for {int((situation.now - used) / DAY)} days"
        yield Finding(
            Severity.LOW, "key_unused", place, f"was not used {when}", "remove it, or set `disabled = true` and see"
        )


def _plain_text(value: object, *path: str) -> Iterator[Finding]:
    if isinstance(value, dict):
        if set(value) in ({"env"}, {"file"}):
            return
        for key, inner in value.items():
            yield from _plain_text(inner, *path, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _plain_text(inner, *path)
    # What came from the environment is of a class of its own.
    elif type(value) is str and value and path:
        # A short one is a placeholder, such as local model servers want.
        named = _SECRET_NAME.fullmatch(path[-1]) and (len(value) >= _SHORT or "password" in path[-1].casefold())
        if named or _SECRET_TEXT.search(value):
            place = f"[{'.'.join(path[:-1])}] {path[-1]}"
            yield Finding(Severity.HIGH, "secret_plain_text", place, "a secret in plain text", _ENV)


def _place(name: str) -> str:
    return f"[plugins.security.keys.{name}]"
