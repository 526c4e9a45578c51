"""Protects against DNS rebinding and cross-site requests from a user's browser.

It does not authenticate: it checks the `Host` and `Origin` headers, which a browser sets and a page cannot forge.
"""

import ipaddress
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from attrs import frozen
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import InvalidRequestError, PermissionDeniedError

_READ_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN_PREFIXES = ("/admin", "/security")


@frozen
class Allowed:
    """The allowed hosts and origins."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, hosts: Collection[str], origins: Collection[str]) -> "Allowed":
        """Normalize the lists of the settings."""
        return cls(
            frozenset(host.casefold() for host in hosts), frozenset(each.casefold().rstrip("/") for each in origins)
        )

    def host(self, header: str) -> bool:
        """Whether this `Host` is allowed: localhost, any IP address, or a configured name."""
        name = _host_name(header)
        if name is None:
            return False
        return "*" in self.hosts or name in self.hosts or header.casefold() in self.hosts or _is_own(name)


class BrowserGuard:
    """ASGI middleware: 421 for a `Host` that is not allowed; for changing requests to the admin pages, 403 for a
    cross-origin request and 415 for a body without a JSON content type.

    Args:
        app: The wrapped application.
        allowed: Returns the current settings.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[], Allowed]) -> None:
        self._app = app
        self._allowed = allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] in ("http", "websocket"):
            self._check(scope, Headers(scope=scope))
        return self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        allowed = self._allowed()
        host = headers.get("host")
        # Browsers always send the header.
        if host is not None and not allowed.host(host):
            raise InvalidRequestError(
                "this host name is not allowed",
                hint="add the host name to `allowed_hosts` in [plugins.security]",
                code="misdirected_request",
                status=421,
            )
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


def _host_name(header: str) -> str | None:
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    return parts.hostname.casefold().removesuffix(".")


def _is_own(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    # DNS rebinding needs a host name; a request to an IP address cannot be rebound.
    return True


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().casefold()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
