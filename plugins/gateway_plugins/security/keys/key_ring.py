"""API keys: made, kept as hashes only, and found again by what a client presents.

It decides nothing but whether a key is good.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from attrs import frozen

from gateway_core import ConfigError, Principal
from gateway_plugins.security.settings import KeySettings

_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@frozen
class NewKey:
    """A key that was just made: the only time that it is there as such."""

    text: str
    id: str
    hash: str


@frozen
class Key:
    """A key as the gateway keeps it."""

    name: str
    id: str
    digest: bytes
    principal: Principal
    expires: float | None = None
    """Seconds since the epoch."""
    disabled: bool = False
    scopes: frozenset[str] | None = None
    """What an admin key may do; `None` is everything."""

    def fault(self, now: float) -> str | None:
        """Why it is no good at this time, in a word; `None` when it is good."""
        if self.disabled:
            return "disabled"
        return "expired" if self.expires is not None and now >= self.expires else None


class KeyRing:
    """All keys of one policy.

    Args:
        keys: No two have the same id or hash.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.by_id: Mapping[str, Key] = {key.id: key for key in keys}
        self._by_digest = {key.digest: key for key in self.by_id.values()}

    def find(self, presented: bytes) -> Key | None:
        """The key that a client presents, whether it is still good or not.

        Looked up by its hash: how long that takes says nothing of how much of a guess is right.
        """
        digest = _digest(presented)
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def make_key() -> NewKey:
    """A new key of 256 random bits: `agw_`, eight characters to know it by, `_`, and the secret."""
    key_id = f"agw_{secrets.token_hex(4)}"
    text = f"{key_id}_{secrets.token_urlsafe(32)}"
    return NewKey(text, key_id, f"sha256:{_digest(text.encode()).hex()}")


def read_keys(tables: Mapping[str, KeySettings]) -> KeyRing:
    """The keys of the settings, checked.

    Raises:
        ConfigError: One cannot be what it says, or two are the same.
    """
    keys: dict[str, Key] = {}
    digests: dict[bytes, str] = {}
    for name, table in tables.items():
        key = _read(name, table)
        for other in (keys.get(key.id), keys.get(digests.get(key.digest, ""))):
            if other is not None:
                raise ConfigError(
                    f"the keys '{other.name}' and '{name}' have the same id or hash",
                    source=f"[plugins.security.keys.{name}]",
                    hint=f"make another one: agent-gateway keys create {name}",
                )
        keys[key.id] = key
        digests[key.digest] = key.id
    return KeyRing(keys.values())


def moment(text: str) -> float:
    """A date, or date and time, in ISO 8601 as seconds since the epoch.

    Raises:
        ValueError: It is none.
    """
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _read(name: str, table: KeySettings) -> Key:
    place = f"[plugins.security.keys.{name}]"
    found = _HASH.fullmatch(table.hash.lower())
    if found is None:
        raise ConfigError(
            "is no hash of a key",
            source=f"{place} hash",
            hint=f"agent-gateway keys create {name} makes a key and prints its hash; the key itself stands nowhere",
        )
    if not _ID.fullmatch(table.id):
        raise ConfigError("is no id of a key", source=f"{place} id", hint='such as "agw_1f2e3d4c"')
    if table.scopes is not None and not table.admin:
        raise ConfigError("is for admin keys only", source=f"{place} scopes", hint="set admin = true, or remove it")
    try:
        expires = moment(table.expires) if table.expires is not None else None
    except (ValueError, OverflowError):
        raise ConfigError("is no date", source=f"{place} expires", hint='such as "2027-01-31T12:00:00Z"') from None
    principal = Principal(table.principal or name, table.admin, table.id)
    scopes = frozenset(table.scopes) if table.scopes is not None else None
    return Key(name, table.id, bytes.fromhex(found[1]), principal, expires, table.disabled, scopes)


def _digest(presented: bytes) -> bytes:
    # A key has 256 random bits: a hash that is slow on purpose protects guessable passwords, and would only add 88 ms.
    return hashlib.sha256(presented).digest()
