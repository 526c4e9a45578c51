"""Keeps foreign web pages from reaching the gateway through the browser of somebody who can.

It asks for no key: it looks at what a browser says of itself, `Host` and `Origin`, which a page cannot make up.
"""

import ipaddress
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from attrs import frozen
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway_core import InvalidRequestError, PermissionDeniedError

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ADMIN = ("/admin", "/security")


@frozen
class Allowed:
    """Who may, as configured."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, hosts: Collection[str], origins: Collection[str]) -> "Allowed":
        """As written in the settings."""
        return cls(
            frozenset(host.casefold() for host in hosts), frozenset(each.casefold().rstrip("/") for each in origins)
        )

    def host(self, header: str) -> bool:
        """Whether the gateway is to be known by this `Host`: a name may be anybody's, an address only its own."""
        name = _host_name(header)
        if name is None:
            return False
        return "*" in self.hosts or name in self.hosts or header.casefold() in self.hosts or _is_own(name)


class BrowserGuard:
    """ASGI middleware: 421 for a foreign `Host`; on what changes something, 403 for a foreign `Origin` and 415 for a
    body that is not declared as JSON.

    Args:
        app: What is inside.
        allowed: Tells what is configured at this moment.
    """

    def __init__(self, app: ASGIApp, allowed: Callable[[], Allowed]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            self._check(scope, Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        allowed = self._allowed()
        host = headers.get("host")
        # Without the header it is no browser.
        if host is not None and not allowed.host(host):
            raise InvalidRequestError(
                "the gateway does not answer to this host name",
                hint="`allowed_hosts` of the plugin `security` lists the names that it has beside this machine's own",
                code="misdirected_request",
                status=421,
            )
        if scope["type"] == "websocket" or scope["method"] in _READING:
            return
        foreign = _is_foreign(headers.get("origin"), host, allowed.origins)
        if any(scope["path"] == root or scope["path"].startswith(f"{root}/") for root in _ADMIN):
            if foreign:
                raise PermissionDeniedError("a page of another origin may not change anything", code="foreign_origin")
            declared = headers.get("content-type") is not None or _has_body(headers)
        else:
            # A page may send JSON only after the browser asked, and `[http] cors_origins` answers that.
            declared = foreign
        if declared and not _is_json(headers.get("content-type", "")):
            raise InvalidRequestError(
                "the body must be declared as JSON",
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
    # Behind a proxy the scheme is the proxy's; a page on the same host and port is the gateway's own.
    scheme, _, place = folded.partition("://")
    return host is None or scheme not in ("http", "https") or place != host.casefold()


def _host_name(header: str) -> str | None:
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises where it is no number
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
    # Nobody can make a browser believe that a name is an address, so an address is no way in for a foreign page.
    return True


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    media = content_type.partition(";")[0].strip().casefold()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))
