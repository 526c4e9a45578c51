"""Reads JSON schemas: follows references, merges `allOf`, lists alternatives, and checks a value.

This module must not make values. It knows the keywords that tools and output types use, not all there are.
"""

import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_MOST_REFERENCES = 16
_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}
_TYPED_BY = {
    "properties": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
}


def resolve(schema: Any, root: Schema) -> Schema:
    """A schema with its own references followed and its `allOf` merged into it; what is none becomes the empty one."""
    for _ in range(_MOST_REFERENCES):
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(schema.get("$ref"), str):
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = merge(_at(root, schema["$ref"]), rest)
        elif isinstance(schema.get("allOf"), list):
            merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                merged = merge(merged, part)
            schema = merged
        else:
            return schema
    return {}


def merge(first: Any, second: Any) -> Schema:
    """A schema that holds where both hold. References in both are kept as an `allOf`."""
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return next((one for one in (first, second) if isinstance(one, Mapping)), {})
    if not second:
        return first
    merged = {**first, **second}
    for key in first.keys() & second.keys():
        merged[key] = _merge_keyword(key, first[key], second[key])
    return merged


def alternatives(schema: Schema) -> list[Schema]:
    """The branches of `anyOf`, `oneOf` or a list of types, each with what stands beside them; else an empty list."""
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            beside = {name: value for name, value in schema.items() if name not in (key, "default", "discriminator")}
            return [merge(beside, branch) for branch in schema[key]]
    if isinstance(schema.get("type"), list):
        beside = {name: value for name, value in schema.items() if name != "default"}
        return [{**beside, "type": kind} for kind in schema["type"]]
    return []


def type_of(schema: Schema) -> str | None:
    """The type that a schema names or implies."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    return next((implied for key, implied in _TYPED_BY.items() if key in schema), None)


def fits(value: Any, schema: Any, root: Schema) -> bool:
    """Whether a value is valid, as far as the keywords known here say. Bounds of strings are in characters."""
    schema = resolve(schema, root)
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(schema.get("enum"), list) and value not in schema["enum"]:
        return False
    if branches := alternatives(schema):
        return any(fits(value, branch, root) for branch in branches)
    kind = schema.get("type")
    if isinstance(kind, str):
        if not isinstance(value, _PYTHON_TYPES.get(kind, (object,))):
            return False
        if isinstance(value, bool) and kind in ("integer", "number"):
            return False
    if isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _string_fits(value, schema)
    if isinstance(value, int | float):
        return _number_fits(value, schema)
    if isinstance(value, list):
        within = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return within and all(fits(item, schema.get("items"), root) for item in value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False and value.keys() - properties.keys()
        complete = all(name in value for name in schema.get("required", ()))
        return (
            complete and not closed and all(fits(value[n], part, root) for n, part in properties.items() if n in value)
        )
    return True


def _string_fits(value: str, schema: Schema) -> bool:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return False
    pattern = schema.get("pattern")
    try:
        return not isinstance(pattern, str) or re.search(pattern, value[:1000]) is not None
    except re.error:
        return True


def _number_fits(value: float, schema: Schema) -> bool:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf")
    return (
        low <= value <= high
        and (above is None or isinstance(above, bool) or value > above)
        and (below is None or isinstance(below, bool) or value < below)
        and (not step or value / step == int(value / step))
    )


def _at(root: Schema, reference: str) -> Any:
    """What a local reference such as `#/$defs/Point` points to; the empty schema where it points nowhere."""
    found: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return {} if found is None or not reference.startswith("#") else found


def _merge_keyword(key: str, first: Any, second: Any) -> Any:
    if key == "properties" and isinstance(first, Mapping) and isinstance(second, Mapping):
        both = first.keys() & second.keys()
        return {**first, **second, **{name: {"allOf": [first[name], second[name]]} for name in both}}
    if key in ("required", "allOf", "enum") and isinstance(first, list) and isinstance(second, list):
        kept = [value for value in first if key != "enum" or value in second]
        return kept if key == "enum" else kept + [value for value in second if value not in kept]
    if isinstance(first, int | float) and isinstance(second, int | float):
        if key.startswith(("min", "exclusiveMin")):
            return max(first, second)
        if key.startswith(("max", "exclusiveMax")):
            return min(first, second)
    return second
