"""Strings and numbers that keep to the bounds, formats and patterns of a JSON schema.

This module must not choose what to say: it is given a wish and comes as near to it as the schema allows.
"""

import base64
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import islice

from gateway_plugins.offline_model.material import Material
from gateway_plugins.offline_model.schema import Schema, fits

# Where the text has none: fixed, so that the same text always gives the same answer.
_FORMATS: Mapping[str, str] = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "user@example.com",
    "idn-email": "user@example.com",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "multi-host-uri": "https://example.com/",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "ipv4network": "127.0.0.0/8",
    "ipv6network": "::1/128",
    "ipv4interface": "127.0.0.1/8",
    "ipv6interface": "::1/128",
    "ipvanyaddress": "127.0.0.1",
    "json-string": "{}",
    "json-pointer": "",
    "regex": ".*",
}
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PADDING = "."
_LONGEST_PADDING = 100_000
_TRIED_TOKENS = 200
_STEPS = 1000


def string(schema: Schema, name: str, material: Material) -> str:
    """A string for a field."""
    if (kind := schema.get("format")) in _FORMATS:
        return _formatted(str(kind), material)
    if kind in ("base64", "base64url", "byte"):
        return base64.b64encode(material.string(name).encode()).decode()
    if isinstance(schema.get("pattern"), str):
        for candidate in _candidates(name, material):
            if fits(candidate, schema, {}):
                return candidate
    return of_length(material.string(name), schema)


def of_length(text: str, schema: Schema) -> str:
    """A text, cut or padded to the length that a schema asks for."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return text[:most].ljust(min(least, _LONGEST_PADDING), _PADDING)


def integer(value: float, schema: Schema) -> int:
    """The integer next to a value that keeps to the bounds; where there is none, one that does not."""
    low, high = _whole_bounds(schema)
    step = schema.get("multipleOf") or 1
    near = int(min(max(math.trunc(value), low), high))
    for offset in range(_STEPS):
        for candidate in (near + offset, near - offset):
            if low <= candidate <= high and candidate / step == int(candidate / step):
                return candidate
    # A large step: its multiples are too far apart to walk.
    multiple = math.ceil(near / step) * step
    return int(multiple if multiple <= high else multiple - step)


def number(value: float, schema: Schema) -> float | int:
    """The number next to a value that keeps to the bounds; where there is none, one that does not."""
    step = schema.get("multipleOf")
    low, high = _bound(schema, "minimum", -math.inf), _bound(schema, "maximum", math.inf)
    above, below = _bound(schema, "exclusiveMinimum", -math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    near = min(max(value, low, above), high, below)
    if step:
        first = math.floor(near / step)
        multiples = (multiple * step for k in range(_STEPS) for multiple in (first + k, first - k))
        return next((multiple for multiple in multiples if fits(multiple, schema, {})), near)
    least, most = max(low, above), min(high, below)
    if near <= above:
        near = (least + most) / 2 if math.isfinite(most) else least + max(1.0, abs(least) * 1e-6)
    elif near >= below:
        near = (least + most) / 2 if math.isfinite(least) else most - max(1.0, abs(most) * 1e-6)
    return near


def _whole_bounds(schema: Schema) -> tuple[float, float]:
    low, high = _bound(schema, "minimum", -math.inf), _bound(schema, "maximum", math.inf)
    above, below = _bound(schema, "exclusiveMinimum", -math.inf), _bound(schema, "exclusiveMaximum", math.inf)
    least = max(math.ceil(low) if math.isfinite(low) else low, math.floor(above) + 1 if math.isfinite(above) else above)
    most = min(
        math.floor(high) if math.isfinite(high) else high, math.ceil(below) - 1 if math.isfinite(below) else below
    )
    return least, most


def _bound(schema: Schema, key: str, default: float) -> float:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _formatted(kind: str, material: Material) -> str:
    found: str | None = None
    if kind in ("email", "idn-email"):
        found = material.email()
    elif kind in ("uri", "url"):
        found = material.url()
    elif kind == "uuid":
        found = next((token for token in material.tokens() if _UUID.fullmatch(token)), None)
    elif kind in ("date", "date-time"):
        found = _date(kind, material.date())
    return found or _FORMATS[kind]


def _date(kind: str, found: str | None) -> str | None:
    try:
        if found is None or kind == "date":
            return found and date.fromisoformat(found[:10]).isoformat()
        moment = datetime.fromisoformat(found)
    except ValueError:
        return None
    return moment.isoformat() + ("" if moment.tzinfo else "Z")


def _candidates(name: str, material: Material) -> Iterable[str]:
    """Strings to hold against a pattern: pieces of the text, then the plainest ones there are."""
    stated = material.stated(name)
    if stated:
        yield stated
    yield from islice(material.tokens(), _TRIED_TOKENS)
    yield material.string(name)
    for character in "aA0":
        for length in range(1, 41):
            yield character * length
