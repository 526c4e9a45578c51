"""Extracts the API key from the headers `Authorization: Bearer` and `x-api-key`.

It does not validate the key; see `keys/key_ring.py`.
"""

from collections.abc import Iterable

from gateway_core import AuthenticationError

# Generated keys have 56 characters; longer input is rejected before it is hashed.
_MAX_LENGTH = 512


def presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key of a request; `None` if it has none.

    Args:
        headers: ASGI headers, with names in lower case.

    Raises:
        AuthenticationError: The request has two different keys, or a malformed one.
    """
    found = {key for name, value in headers if (key := _key(name, value))}
    if not found:
        return None
    if len(found) > 1:
        raise AuthenticationError("the request has two different API keys", hint="send only one key")
    key = found.pop()
    if len(key) > _MAX_LENGTH:
        raise invalid_key()
    return key


def invalid_key() -> AuthenticationError:
    """Create the error for every rejected key; it is always the same, so that it does not reveal the reason."""
    return AuthenticationError("the API key is not valid")


def _key(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value.strip()
    if name != b"authorization" or not value.strip():
        return b""
    scheme, _, key = value.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise AuthenticationError(
            "the `Authorization` header is not of the form `Bearer KEY`", hint="send `Authorization: Bearer KEY`"
        )
    return key.strip()
