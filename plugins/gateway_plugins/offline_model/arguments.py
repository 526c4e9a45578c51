"""Generates a JSON value for a JSON schema: the arguments of a call, or a structured output.

A value comes from a text where a simple rule finds one, else from the schema: its default, or a minimal valid value.
Strings do not follow `pattern`; `not`, `if` and `contains` are ignored; several items of an array may be equal.
"""

import re
from collections.abc import Mapping
from math import inf, nextafter
from typing import Any

Schema = Mapping[str, Any]

# Limits, so that every text and every schema, also a recursive one, is processed in bounded time.
_MOST_CHARACTERS = 4000
_DEEP = 4
_DEEPEST = 8
_MOST_VALUES = 1000
_MOST_REFERENCES = 16

_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"(?<![\w.,-])-?(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,9})?(?![\w-])")
_QUOTED = re.compile(r'["“]([^"”\n]{1,300})["”]')
# Capitalized words, except at the start of a sentence.
_NAME = re.compile(r"(?<=[\w,;:] )[A-ZÀ-ÖØ-Þ][^\W\d_]+(?: [A-ZÀ-ÖØ-Þ][^\W\d_]+){0,4}")
_STOP_WORDS = frozenset(
    _WORD.findall(
        "the and for are you your can could how what when where which who why does did will would should have has had"
        " with from this that there then than about into not its his her our their they them was were but all any some"
        " please tell give show get let make use want need know like just today agent assistant user"
        " handoff transfer handle request question answer call return returns"
    )
)
# Fields that ask for the whole text, and fields that ask for a number in a string.
_WHOLE_TEXT = frozenset(
    _WORD.findall("input query question prompt request task message text answer response summary reason")
)
_IDENTIFIER = frozenset({"number", "id"})
_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "user@example.com",
    "uri": "https://example.com/",
    "ipv4": "127.0.0.1",
}
_SIMPLEST_FIRST = {"null": 0, "object": 2, "array": 2}


def words(text: str) -> set[str]:
    """The words of a text or an identifier, in lower case, without stop words, short words and a plural's `s`."""
    found = (word.casefold() for word in _WORD.findall(text[:_MOST_CHARACTERS]))
    return {word.removesuffix("s") for word in found if len(word) > 2 and word not in _STOP_WORDS}


def fill(schema: Schema, text: str) -> Any:
    """Generates a JSON value that is valid for a schema.

    Args:
        schema: A JSON schema whose references, if any, are local.
        text: Searched for numbers, members of enumerations, quoted text and capitalized words. Each is used once.
    """
    return _Filler(schema, text).value(schema, "", 0)


class _Filler:
    def __init__(self, root: Schema, text: str) -> None:
        self._root = root
        self._text = text.strip()
        self._searched = text[:_MOST_CHARACTERS]
        self._quoted = _QUOTED.findall(self._searched)
        self._names = _NAME.findall(self._searched)
        digits = (found.replace(",", "") for found in _NUMBER.findall(self._searched))
        self._numbers = [float(number) if "." in number else int(number) for number in digits]
        self._values_left = _MOST_VALUES

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """The value of a field; None beyond the limits."""
        schema = self._resolve(schema)
        self._values_left -= 1
        if depth > _DEEPEST or self._values_left < 0:
            return None
        if "const" in schema:
            return schema["const"]
        if (stated := self._stated(schema)) is not None:
            return stated
        if "default" in schema:
            return schema["default"]
        if schema.get("enum"):
            return schema["enum"][0]
        if branches := self._branches(schema):
            simplest = min(branches, key=lambda branch: _SIMPLEST_FIRST.get(_kind(branch), 1))
            return self.value(simplest, name, depth + 1)
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number":
                return _number(schema, 1)
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _stated(self, schema: Schema) -> Any:
        """The value that the text states: a member of an enumeration, or the next number; else None."""
        for branch in (schema, *self._branches(schema)):
            for member in branch.get("enum", ()):
                if re.search(rf"(?<!\w){re.escape(str(member))}(?!\w)", self._searched, re.IGNORECASE):
                    return member
            if _is_number(branch) and "enum" not in branch and self._numbers:
                return _number(branch, self._numbers.pop(0))
        return None

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        value: dict[str, Any] = {}
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        for name in dict.fromkeys((*properties, *required)):
            part = self._resolve(properties.get(name, schema.get("additionalProperties")))
            if name in required or "default" in part:
                value[name] = self.value(part, name, depth + 1)
            elif (stated := self._stated(part)) is not None:
                value[name] = stated
        return value

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        value = [self.value(part, name, depth + 1) for part in schema.get("prefixItems", ())]
        each = self._resolve(schema.get("items"))
        wanted = len(self._numbers) if _is_number(each) and not schema.get("uniqueItems") else 1
        if depth > _DEEP or "prefixItems" in schema:
            wanted = 0
        wanted = max(schema.get("minItems", 0), min(wanted, schema.get("maxItems", wanted)))
        while len(value) < wanted and self._values_left > 0:
            value.append(self.value(each, name, depth + 1))
        return value

    def _string(self, schema: Schema, name: str) -> str:
        asked = set(name.casefold().split("_"))
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if self._quoted:
            text = self._quoted.pop(0)
        elif self._numbers and asked & _IDENTIFIER:
            text = str(self._numbers.pop(0))
        elif self._names and not asked & _WHOLE_TEXT:
            text = self._names.pop(0)
        else:
            text = self._text
        return str(text[: schema.get("maxLength")]).ljust(min(schema.get("minLength", 0), _MOST_CHARACTERS), ".")

    def _branches(self, schema: Schema) -> list[Schema]:
        """The alternatives of a schema, each combined with its sibling keywords; empty if it has no alternatives."""
        kinds = schema.get("type")
        by_type = [{"type": kind} for kind in kinds] if isinstance(kinds, list) else []
        beside = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        options = schema.get("anyOf") or schema.get("oneOf") or by_type
        return [{**beside, **self._resolve(option)} for option in options]

    def _resolve(self, schema: Any) -> Schema:
        """A schema with its references followed and its `allOf` merged; `{}` for anything else, such as `true`."""
        for _ in range(_MOST_REFERENCES):
            if not isinstance(schema, Mapping):
                return {}
            parts = list(schema.get("allOf", ()))
            if "$ref" in schema:
                target: Any = self._root
                for key in str(schema["$ref"]).split("/")[1:]:
                    target = target.get(key) if isinstance(target, Mapping) else None
                parts.append(target)
            if not parts:
                return schema
            schema = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
            for part in parts:
                schema = {**(part if isinstance(part, Mapping) else {}), **schema}
        return {}


def _kind(schema: Schema) -> str:
    """The type that a schema names or implies."""
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _is_number(schema: Schema) -> bool:
    return _kind(schema) in ("integer", "number")


def _number(schema: Schema, value: float) -> float:
    """The number nearest to a value within the bounds of a schema."""
    step = schema.get("multipleOf") or (1 if _kind(schema) == "integer" else None)
    low = max(schema.get("minimum", -inf), nextafter(schema.get("exclusiveMinimum", -inf), inf))
    high = min(schema.get("maximum", inf), nextafter(schema.get("exclusiveMaximum", inf), -inf))
    value = min(max(value, low), high)
    if step:
        value = -(-value // step) * step
        value = value if value <= high else high // step * step
    return int(value) if _kind(schema) == "integer" else value
