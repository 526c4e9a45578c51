"""Creates API keys, and finds the configured key that a client presents by its hash.

It checks expiry and revocation, and does not evaluate rules.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from attrs import frozen

from gateway_core import ConfigError, Principal, Problems
from gateway_plugins.security.settings import KeySettings

_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen
class NewKey:
    """A key that was just created. Its text is not stored anywhere."""

    text: str
    id: str
    hash: str


@frozen
class Key:
    """A configured key, without its text."""

    name: str
    id: str
    digest: bytes
    principal: Principal
    expires: float | None = None
    """Seconds since the epoch."""
    disabled: bool = False
    scopes: frozenset[str] | None = None
    """The scopes of an admin key; `None` means all operations."""

    def fault(self, now: float) -> str | None:
        """Return `disabled` or `expired`; `None` if the key is valid at the time `now`."""
        if self.disabled:
            return "disabled"
        return "expired" if self.expires is not None and now >= self.expires else None


class KeyRing:
    """All keys of one policy.

    Args:
        keys: The keys.

    Raises:
        ConfigError: Two keys have the same id or hash.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.by_id: dict[str, Key] = {}
        self._by_digest: dict[bytes, Key] = {}
        for key in keys:
            for found in (self.by_id.setdefault(key.id, key), self._by_digest.setdefault(key.digest, key)):
                if found is not key:
                    raise ConfigError(
                        f"the keys '{found.name}' and '{key.name}' have the same id or hash",
                        source=f"[plugins.security.keys.{key.name}]",
                        hint=f"create a new key: agent-gateway keys create {key.name}",
                    )

    def find(self, presented: bytes) -> Key | None:
        """Return the key that a client presents, even if it is expired or disabled; `None` if it is unknown.

        The lookup is by hash, so its duration does not reveal how much of a guess is correct.
        """
        digest = _digest(presented)
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def make_key() -> NewKey:
    """Create a key: `agw_`, eight characters that identify it, `_`, and a secret of 256 random bits."""
    key_id = f"agw_{secrets.token_hex(4)}"
    text = f"{key_id}_{secrets.token_urlsafe(32)}"
    return NewKey(text, key_id, f"sha256:{_digest(text.encode()).hex()}")


def read_keys(tables: Mapping[str, KeySettings]) -> KeyRing:
    """Validate the keys of the settings.

    Raises:
        ConfigError: A setting is invalid, or two keys have the same id or hash.
    """
    problems, keys = Problems(), []
    for name, table in tables.items():
        with problems.collected():
            keys.append(_read(name, table))
    with problems.collected():
        ring = KeyRing(keys)
    problems.raise_found()
    return ring


def moment(text: str) -> float:
    """Parse an ISO 8601 date, or date and time, to seconds since the epoch; UTC without an offset.

    Raises:
        ValueError: The text is not a date.
    """
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _read(name: str, table: KeySettings) -> Key:
    place = f"[plugins.security.keys.{name}]"
    found = _HASH.fullmatch(table.hash.lower())
    if found is None:
        raise ConfigError(
            "not a valid key hash",
            source=f"{place} hash",
            hint=f"`agent-gateway keys create {name}` prints the hash of a new key; do not put the key itself here",
        )
    if not _ID.fullmatch(table.id):
        raise ConfigError("not a valid key id", source=f"{place} id", hint='for example "agw_1f2e3d4c"')
    if table.scopes is not None and not table.admin:
        raise ConfigError(
            "only admin keys have scopes", source=f"{place} scopes", hint="set `admin = true`, or remove `scopes`"
        )
    try:
        expires = moment(table.expires) if table.expires is not None else None
    except (ValueError, OverflowError):
        raise ConfigError(
            "not a valid date", source=f"{place} expires", hint='for example "2027-01-31T12:00:00Z"'
        ) from None
    principal = Principal(table.principal or name, table.admin, table.id)
    scopes = frozenset(table.scopes) if table.scopes is not None else None
    return Key(name, table.id, bytes.fromhex(found[1]), principal, expires, table.disabled, scopes)


def _digest(presented: bytes) -> bytes:
    # Keys have 256 random bits; a slow password hash would add 88 ms per request and no security.
    return hashlib.sha256(presented).digest()
