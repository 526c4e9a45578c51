"""Restricts admin keys to the admin pages, and to the scopes of the key.

It checks paths and methods only, and does not evaluate rules.
"""

from gateway_core import Decision
from gateway_plugins.security.keys.key_ring import Key

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal(key: Key, method: str, path: str, *, may_chat: bool) -> Decision | None:
    """Return the denial of a request with an admin key; `None` if the request is allowed.

    Args:
        key: The key; `None` is returned for keys that are not admin keys.
        method: The method of the request.
        path: The path of the request.
        may_chat: Whether admin keys may be used for agents.
    """
    if not key.principal.admin:
        return None
    if path == "/v1" or path.startswith("/v1/"):
        return None if may_chat else Decision(False, "admin", reason="admin keys may only use the admin pages")
    scope = _scope(method, path)
    if key.scopes is None or scope in key.scopes:
        return None
    # Routes that no scope covers need a key without a list of scopes.
    return Decision(False, "admin", scope, reason=f"this admin key lacks the scope '{scope or 'all'}'")


def _scope(method: str, path: str) -> str | None:
    if method in _READ_METHODS or path == "/security/preview":
        return "read"
    if path == "/admin/reload":
        return "reload"
    return "override" if path == "/security/override" or path.startswith("/security/override/") else None
