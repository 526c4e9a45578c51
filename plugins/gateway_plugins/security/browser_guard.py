"""Protects against DNS rebinding and cross-site requests from a user's browser.

It does not authenticate: it checks the `Host` and `Origin` headers, which a browser sets and a page cannot forge.
"""

from collections.abc import Awaitable, Callable, Collection

from attrs import frozen
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import InvalidRequestError, PermissionDeniedError
from gateway_plugins.security.host_names import TABLE, AllowedHosts, RefusedHosts, host_name, setting

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN_PREFIXES = ("/admin", "/security")


@frozen
class Allowed:
    """The allowed hosts and origins."""

    hosts: AllowedHosts
    origins: frozenset[str]

    @classmethod
    def of(cls, hosts: AllowedHosts, origins: Collection[str]) -> "Allowed":
        """Normalize the origins of the settings."""
        return cls(hosts, frozenset(each.casefold().rstrip("/") for each in origins))


class BrowserGuard:
    """ASGI middleware: 421 for a `Host` that is not allowed; for changing requests to the admin pages, 403 for a
    cross-origin request and 415 for a body without a JSON content type.

    Args:
        app: The wrapped application.
        allowed: Returns the current settings.
        refused: Reports the refused hosts.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[], Allowed], refused: RefusedHosts) -> None:
        self._app = app
        self._allowed = allowed
        self._refused = refused

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] in ("http", "websocket"):
            self._check(scope, Headers(scope=scope))
        return self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        allowed = self._allowed()
        host = headers.get("host")
        # Browsers always send the header.
        if host is not None and not allowed.hosts.allows(host):
            self._refused.report(host, allowed.hosts)
            raise _misdirected(host)
        if scope["type"] == "websocket" or scope["method"] in _READ_METHODS:
            return
        foreign = _is_foreign(headers.get("origin"), host, allowed.origins)
        if any(scope["path"] == root or scope["path"].startswith(f"{root}/") for root in _ADMIN_PREFIXES):
            if foreign:
                raise PermissionDeniedError("cross-origin requests may not change anything", code="foreign_origin")
            declared = headers.get("content-type") is not None or _has_body(headers)
        else:
            # A cross-origin JSON request needs a CORS preflight, which `[http] cors_origins` answers.
            declared = foreign
        if declared and not _is_json(headers.get("content-type", "")):
            raise InvalidRequestError(
                "the content type must be JSON",
                hint="send `content-type: application/json`",
                code="unsupported_media_type",
                status=415,
            )


def _is_foreign(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    if origin is None:
        return False
    folded = origin.casefold()
    if folded in allowed:
        return False
    # The scheme is not compared: a proxy may terminate TLS. The same host and port is the same origin.
    scheme, _, place = folded.partition("://")
    return host is None or scheme not in ("http", "https") or place != host.casefold()


def _misdirected(host: str) -> InvalidRequestError:
    """Create the error for a refused `Host` header. It quotes only what the client sent."""
    name = host_name(host)
    if name is None:
        message, hint = "the Host header is malformed", "send `Host: NAME` or `Host: NAME:PORT`"
    else:
        message = f"the host name '{name}' is not allowed"
        hint = f"the operator can allow it in gateway.toml, by `{setting([name])}` in {TABLE}"
    return InvalidRequestError(message, hint=hint, code="misdirected_request", status=421)


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().casefold()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
