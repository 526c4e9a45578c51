"""What a request presents as its key: `Authorization: Bearer` and `x-api-key` go through here, and nothing else.

It does not know which keys are good.
"""

from collections.abc import Iterable

from gateway_core import AuthenticationError

# Keys of the gateway's own making have 56 characters; nobody needs to have a megabyte hashed.
_LONGEST = 512


def presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key, or `None` where a request has none.

    Args:
        headers: As ASGI has them, names in lower case.

    Raises:
        AuthenticationError: It presents two different ones, or none that could be a key.
    """
    found = {key for name, value in headers if (key := _key(name, value))}
    if not found:
        return None
    if len(found) > 1:
        raise AuthenticationError("the request has two different API keys", hint="send one")
    key = found.pop()
    if len(key) > _LONGEST:
        raise refused()
    return key


def refused() -> AuthenticationError:
    """The one error for every key that is no good, so that nobody learns why."""
    return AuthenticationError("the API key is not valid")


def _key(name: bytes, value: bytes) -> bytes:
    if name == b"x-api-key":
        return value.strip()
    if name != b"authorization" or not value.strip():
        return b""
    scheme, _, key = value.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise AuthenticationError("the `Authorization` header has no bearer key", hint="send `Bearer KEY`")
    return key.strip()
