"""Two sides that are kept apart: an admin key is for the admin pages, and each of its scopes for some of them.

It knows paths and methods, and no rule.
"""

from gateway_core import Decision
from gateway_plugins.security.keys.key_ring import Key

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal(key: Key, method: str, path: str, *, may_chat: bool) -> Decision | None:
    """Why an admin key may not be used for a request; `None` when nothing speaks against it.

    Args:
        key: The key; one that is no admin's is not spoken of.
        method: Of the request.
        path: Of the request.
        may_chat: Whether admin keys may be used for agents.
    """
    if not key.principal.admin:
        return None
    if path == "/v1" or path.startswith("/v1/"):
        return None if may_chat else Decision(False, "admin", reason="an admin key is for the admin pages only")
    scope = _scope(method, path)
    if key.scopes is None or scope in key.scopes:
        return None
    # What no scope covers is for keys without a list of scopes.
    return Decision(False, "admin", scope, reason=f"this admin key lacks the scope '{scope or 'all'}'")


def _scope(method: str, path: str) -> str | None:
    if method in _READING or path == "/security/preview":
        return "read"
    if path == "/admin/reload":
        return "reload"
    return "override" if path == "/security/override" or path.startswith("/security/override/") else None
