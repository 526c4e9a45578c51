"""Parses and validates the JSON body of a request to grant an override.

Overrides are granted in `overrides/manager.py`.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway_core import InvalidRequestError
from gateway_plugins.security.access_query import GATEWAY
from gateway_plugins.security.policy.compiler import TOOL_SOURCES

KINDS = ("agent", "module", "tool")
_FIELDS = ("kind", "pattern", "principal", "key", "ttl_seconds", "reason")
_MAX_LENGTHS = {"pattern": 200, "principal": 200, "key": 200, "reason": 500}


@frozen
class Grant:
    """A requested override."""

    kind: str
    pattern: str
    principal: str
    """The id of a principal, or of a key."""
    reason: str
    ttl: float | None = None
    """Seconds; `None` for the default lifetime."""


def parse_grant(body: Mapping[str, Any], granter: str) -> Grant:
    """Parse a request for an override.

    Args:
        body: The request's JSON.
        granter: The id of the requesting principal, to which the override applies by default.

    Raises:
        InvalidRequestError: A field is invalid (status 422); the error names the field.
    """
    for name in body:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"supported fields: {', '.join(_FIELDS)}"
            raise _invalid(name[:50], "is not a field of an override", hint)
    kind = body.get("kind")
    if kind not in KINDS:
        raise _invalid("kind", f"must be one of {', '.join(KINDS)}")
    if body.get("principal") is not None and body.get("key") is not None:
        raise _invalid("key", "cannot be combined with 'principal'")
    # The gateway itself loads modules, for all callers.
    default = GATEWAY if kind == "module" else granter
    principal = next((_text(body, name) for name in ("principal", "key") if body.get(name) is not None), default)
    pattern = _text(body, "pattern")
    if kind != "tool" and pattern.casefold().startswith("default/") and pattern.count("/") == 1:
        pattern = pattern.partition("/")[2]  # an alias of the top-level agent
    check_pattern(pattern, kind)
    return Grant(kind=kind, pattern=pattern, principal=principal, reason=_text(body, "reason"), ttl=_ttl(body))


def check_pattern(pattern: str, kind: str) -> None:
    """Check that a pattern is narrow enough for an override.

    Args:
        pattern: Whole segments; for tools also `SOURCE:NAME`, as in rules.
        kind: One of `KINDS`.

    Raises:
        InvalidRequestError: The pattern is malformed or too broad (status 422).
    """
    source, colon, name = pattern.partition(":")
    if colon and (kind != "tool" or source not in TOOL_SOURCES):
        known = ", ".join(TOOL_SOURCES)
        raise _invalid("pattern", f"may have only a tool source before a colon: {known}")
    segments = (name if colon else pattern).split("/")
    if "**" in segments:
        raise _invalid("pattern", "must not contain '**'", "name the agents, modules or tools; '*' matches one segment")
    if any(not segment or segment != segment.strip() or segment in (".", "..") for segment in segments):
        raise _invalid("pattern", "has a segment that is empty, '.' or '..', or begins or ends with a space")
    if any("*" in segment and segment != "*" for segment in segments):
        raise _invalid("pattern", "has a '*' within a segment", "'*' must be a whole segment, as in 'labs/*'")
    if all(segment == "*" for segment in segments):
        raise _invalid("pattern", "must have at least one segment other than '*'")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(name, "is required and must be a non-empty string")
    value = value.strip()
    if len(value) > _MAX_LENGTHS[name]:
        raise _invalid(name, f"is longer than {_MAX_LENGTHS[name]} characters")
    if not value.isprintable():
        raise _invalid(name, "must be a single line of printable characters")
    return value


def _ttl(body: Mapping[str, Any]) -> float | None:
    value = body.get("ttl_seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise _invalid("ttl_seconds", "must be a positive number of seconds")
    return float(value)


def _invalid(name: str, problem: str, hint: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(f"'{name}' {problem}", param=name, hint=hint, code="invalid_override", status=422)
