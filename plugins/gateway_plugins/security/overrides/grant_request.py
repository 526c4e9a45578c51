"""What an operator asks for when granting an override, read from JSON and checked.

It grants nothing.
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
_LONGEST = {"pattern": 200, "principal": 200, "key": 200, "reason": 500}


@frozen
class Grant:
    """An override as it is asked for."""

    kind: str
    pattern: str
    principal: str
    """The id of a principal, or of a key."""
    reason: str
    ttl: float | None = None
    """Seconds; `None` for as long as is usual."""


def parse_grant(body: Mapping[str, Any], asking: str) -> Grant:
    """Read a grant.

    Args:
        body: The request's JSON.
        asking: The principal that asks, for whom it is unless it says otherwise.

    Raises:
        InvalidRequestError: It is not one (status 422); the error names the field.
    """
    for name in body:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(_FIELDS)}"
            raise _bad(name[:50], "is no field of an override", hint)
    kind = body.get("kind")
    if kind not in KINDS:
        raise _bad("kind", f"must be one of {', '.join(KINDS)}")
    if body.get("principal") is not None and body.get("key") is not None:
        raise _bad("key", "cannot stand beside 'principal': an override is for one of them")
    # Modules are loaded by the gateway, for nobody in particular.
    unsaid = GATEWAY if kind == "module" else asking
    whom = next((_text(body, name) for name in ("principal", "key") if body.get(name) is not None), unsaid)
    pattern = _text(body, "pattern")
    if kind != "tool" and pattern.casefold().startswith("default/") and pattern.count("/") == 1:
        pattern = pattern.partition("/")[2]  # the other name of what is at the top level
    check_pattern(pattern, kind)
    return Grant(kind=kind, pattern=pattern, principal=whom, reason=_text(body, "reason"), ttl=_ttl(body))


def check_pattern(pattern: str, kind: str) -> None:
    """Whether it is narrow enough for an override.

    Args:
        pattern: Whole segments; of tools also `SOURCE:NAME`, as rules have them.
        kind: One of `KINDS`.

    Raises:
        InvalidRequestError: It is not (status 422).
    """
    source, colon, name = pattern.partition(":")
    if colon and (kind != "tool" or source not in TOOL_SOURCES):
        known = ", ".join(TOOL_SOURCES)
        raise _bad("pattern", f"has a colon, before which only a tool's source may stand: {known}")
    segments = (name if colon else pattern).split("/")
    if "**" in segments:
        raise _bad("pattern", "must not have '**'", "an override is for something that you can name")
    if any(not segment or segment != segment.strip() or segment in (".", "..") for segment in segments):
        raise _bad("pattern", "has a segment that is empty, of dots only, or begins or ends with a space")
    if any("*" in segment and segment != "*" for segment in segments):
        raise _bad("pattern", "has a '*' within a segment", "'*' stands for one whole segment, as in 'labs/*'")
    if all(segment == "*" for segment in segments):
        raise _bad("pattern", "must name at least one segment")


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _bad(name, "is required, as text")
    value = value.strip()
    if len(value) > _LONGEST[name]:
        raise _bad(name, f"is longer than {_LONGEST[name]} characters")
    if not value.isprintable():
        raise _bad(name, "must be one line of printable text")
    return value


def _ttl(body: Mapping[str, Any]) -> float | None:
    value = body.get("ttl_seconds")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise _bad("ttl_seconds", "must be a number of seconds above 0")
    return float(value)


def _bad(name: str, problem: str, hint: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(f"'{name}' {problem}", param=name, hint=hint, code="invalid_override", status=422)
