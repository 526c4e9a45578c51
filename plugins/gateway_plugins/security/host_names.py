"""Decides which names in the `Host` header are allowed, and reports refused names with the setting that allows them.

A name is allowed if a web page on the internet cannot have it, or if the operator listed it. By DNS rebinding, a page
can make only its own name resolve to this machine.
"""

import ipaddress
import logging
import os
import re
import time
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from attrs import field, frozen

logger = logging.getLogger(__name__)

ENVIRONMENT = "GATEWAY__PLUGINS__SECURITY__ALLOWED_HOSTS"
TABLE = "[plugins.security]"

_PRIVATE_SUFFIXES = (".internal", ".local")
"""Top-level domains for private networks, which the public DNS never has (ICANN, RFC 6762)."""
_NAME = re.compile(r"[a-z0-9._:%-]+")
_REPORT_SECONDS = 60.0
_MAX_REPORTED = 100


@frozen
class AllowedHosts:
    """The allowed names.

    Args:
        listed: The names in the settings.
        private: Whether names of private networks are allowed: those without a dot, and in `.internal` and `.local`.
            A page of another machine in the network could have such a name, so this requires that clients need a key,
            which a page does not have.
    """

    listed: Sequence[str]
    private: bool
    _names: frozenset[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(entry.casefold().removesuffix(".") for entry in self.listed))

    def allows(self, header: str) -> bool:
        """Whether a `Host` header is allowed: localhost, any IP address, a private name, or a listed one."""
        name = host_name(header)
        if name is None:
            return False
        return "*" in self._names or name in self._names or header.casefold() in self._names or self._is_own(name)

    def describe(self) -> str:
        """Describe the names for operators."""
        if "*" in self.listed:
            return "every host name"
        private = ["names without a dot, *.internal, *.local"] if self.private else []
        return ", ".join(["localhost", "IP addresses", *private, *self.listed])

    def _is_own(self, name: str) -> bool:
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        return self.private and ("." not in name or name.endswith(_PRIVATE_SUFFIXES))


class RefusedHosts:
    """Logs each refused name, at most once per minute, with the lines that allow it.

    Args:
        file: The configuration file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reported: dict[str, float] = {}

    def report(self, header: str, allowed: AllowedHosts) -> None:
        """Log a refused `Host` header. Clients choose it, so the number of reported names is limited."""
        name, now = host_name(header), time.monotonic()
        self._reported = {each: when for each, when in self._reported.items() if now - when < _REPORT_SECONDS}
        if name is None or name in self._reported or len(self._reported) >= _MAX_REPORTED:
            return
        self._reported[name] = now
        cure, fields = self._cure(name, allowed)
        # The console shows only the text of a message.
        logger.warning(
            "refused a request: the host name %s is not allowed (%s)",
            name,
            cure,
            extra={"fields": {"host": name, **fields}},
        )

    def _cure(self, name: str, allowed: AllowedHosts) -> tuple[str, dict[str, str]]:
        """Return what to do, as text and as fields."""
        names = [*allowed.listed, name]
        if ENVIRONMENT in os.environ:  # takes precedence over the file
            variable = f"{ENVIRONMENT}={','.join(names)}"
            return f"set {variable}, then restart", {"set": variable, "then": "restart"}
        line, then = setting(names), "send SIGHUP, or restart"
        try:
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
            tomllib.loads(f"{text}\n{TABLE}\n{line}\n")
            where = f"add both lines to {self._file}"
            cure = f"add the lines `{TABLE}` and `{line}` to {self._file}, then {then}"
        except (OSError, ValueError):
            where = f"set the line in the table that {self._file} has"
            cure = f"set `{line}` in the table {TABLE} of {self._file}, then {then}"
        return cure, {"allow": where, "table": TABLE, "line": line, "then": then}


def setting(names: Collection[str]) -> str:
    """Return the line of the configuration file that allows the names."""
    return f"allowed_hosts = [{', '.join(repr(name) for name in names)}]"


def host_name(header: str) -> str | None:
    """Return the name in a `Host` header in lower case, without the port; `None` if the header is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    name = parts.hostname.casefold().removesuffix(".")
    return name if _NAME.fullmatch(name) else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
