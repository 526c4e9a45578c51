"""Parses settings that name hosts: addresses, networks, URLs and web origins."""

import ipaddress
import re
from typing import Any, NewType
from urllib.parse import urlsplit

from gateway_core.config.values import LITERAL_VARIABLE, as_text
from gateway_core.errors import ConfigError
from gateway_core.net.addresses import Network

Host = NewType("Host", str)
"""A host name or an address."""

Address = NewType("Address", str)
"""A host and a port, such as `127.0.0.1:9464`, or an empty string."""

AllowedHost = NewType("AllowedHost", str)
"""A host name of the gateway, with or without a port, or `*`."""

Origin = NewType("Origin", str)
"""A web origin such as `https://chat.example.com`, or `*`."""

Url = NewType("Url", str)
"""The base URL of an HTTP server."""

_IPV6 = r"\[?[0-9a-fA-F]*:[0-9a-fA-F:.]*(%\w+)?\]?"
_HOST = re.compile(rf"[^\s:/@\[\]]+|{_IPV6}")
# The form of a `Host` header, which has no other letters.
_ALLOWED_HOST = re.compile(rf"[a-zA-Z0-9._-]+|{_IPV6}|\*")
_ENDPOINTS = re.compile(r"/(chat/completions|completions|responses|models|embeddings)/*$")


def as_host(value: Any, _: Any) -> str:
    """Parse a host name or an address."""
    if not _HOST.fullmatch(text := as_text(value, _)):
        raise ConfigError(
            f"not a host name or an address: {text!r:.200}",
            hint='write it without scheme and port, such as "127.0.0.1"; the port is a separate setting',
        )
    return text


def as_allowed_host(value: Any, _: Any) -> str:
    """Parse a host name with or without a port, or `*`."""
    text = as_text(value, _)
    if not _ALLOWED_HOST.fullmatch(re.sub(r"(?<=[^*]):\d+$", "", text)):
        raise ConfigError(
            f"not a host name: {text!r:.200}",
            hint='write the name alone, such as "chat.example.com", or "*" for any name',
        )
    return text


def as_origin(value: Any, _: Any) -> str:
    """Parse a web origin: a scheme, a host and, if it is not the scheme's own, a port."""
    text = as_text(value, _).rstrip("/")
    if not re.fullmatch(r"\*|null|[a-zA-Z][\w+.-]*://[^\s/?#@*]+", text):
        raise ConfigError(
            f"not a web origin: {text!r:.200}",
            hint='write scheme and host, and no path, such as "https://chat.example.com"',
        )
    return text


def as_url(value: Any, _: Any) -> str:
    """Parse the base URL of an HTTP server."""
    return check_url(as_text(value, _))


def check_url(value: str) -> str:
    """Check that a text is the base URL of an HTTP server, and return it.

    Raises:
        ConfigError: It is not such a URL.
    """
    if LITERAL_VARIABLE.search(value):
        raise ConfigError(
            f"variables in text are not replaced: {value!r:.200}",
            hint="write the URL itself, or set the setting's own variable: GATEWAY__TABLE__KEY",
        )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    known = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    if not known or parts.username is not None or re.search(r"[\s\\\x00-\x1f\x7f]", value):
        raise ConfigError(
            f"invalid URL: {_without_credentials(value)!r:.200}",
            hint=_url_hint(value, parts.username is not None),
        )
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ConfigError("a base URL has no query and no fragment", hint=f'write "{re.split("[?#]", value)[0]}"')
    if _ENDPOINTS.search(parts.path):
        raise ConfigError(
            f"is the URL of an endpoint: {value!r:.200}",
            hint=f'write the base URL: "{_ENDPOINTS.sub("", value)}"',
        )
    return value


def _url_hint(value: str, credentials: bool) -> str:
    bare = re.fullmatch(r"(?:https?:/{0,2})?(?!\w+://)([\w.\-\[\]:]+(?:/[^\s?#]*)?)", value.strip())
    if credentials:
        return "remove the credentials; a key or a header of the table can hold them"
    if bare and not value.startswith(("http://", "https://")):
        local = re.match(r"localhost\b|127\.|\[?::1|10\.|192\.168\.|[\w-]+:\d+", bare[1])
        return f'write "{"http" if local else "https"}://{bare[1]}"'
    return 'use http:// or https:// and a host, such as "http://127.0.0.1:8001/v1"'


def _without_credentials(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)


def as_address(value: Any, _: Any) -> str:
    """Parse a host and a port, or an empty string."""
    if text := as_text(value, _):
        host_and_port(text)
    return text


def host_and_port(address: str) -> tuple[str, int]:
    """Return the host and the port of a setting such as `127.0.0.1:9464`.

    Raises:
        ConfigError: It is not an address with a port.
    """
    host, _, port = address.rpartition(":")
    if not host or not _HOST.fullmatch(host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(f"'{address:.200}' is not a valid address", hint='use host:port, such as "127.0.0.1:8001"')
    return host, int(port)


def as_network(value: Any, _: Any) -> Network:
    """Parse an address or a network."""
    try:
        return ipaddress.ip_network(as_text(value, _), strict=False)
    except ValueError as error:
        raise ConfigError(str(error), hint='try "127.0.0.1", "10.0.0.0/8"') from None
