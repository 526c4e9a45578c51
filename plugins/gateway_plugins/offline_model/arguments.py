"""Fills a JSON schema from what was said: the arguments of a tool, or an answer that must have a form.

It must not call anything or know of tools: it turns a schema and some material into a JSON value.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway_plugins.offline_model import scalars
from gateway_plugins.offline_model.material import Material
from gateway_plugins.offline_model.schema import Schema, alternatives, fits, resolve, type_of

_DEEP = 4
"""From here on down only what a schema insists on is filled, so that one that contains itself comes to an end."""
_DEEPEST = 12
_MOST_ITEMS = 100
_NO_NUMBER = 1


class _Nothing:
    """Says that the text has no value for a field."""


_NOTHING: Final = _Nothing()


def fill(schema: Mapping[str, Any], material: Material) -> Any:
    """A JSON value for a schema.

    A field that may be left out, may be null or has a default takes a value only if the text names it.

    Args:
        schema: A JSON schema with local references.
        material: What was said. Its pieces are used up.
    """
    return _Filler(schema, material).fill(schema, "", 0)


class _Filler:
    def __init__(self, root: Schema, material: Material) -> None:
        self._root = root
        self._material = material

    def fill(self, schema: Any, name: str, depth: int) -> Any:
        """The value for a field that has to have one."""
        schema = resolve(schema, self._root)
        if depth > _DEEPEST:
            return schema.get("default")
        named = self.named(schema, name, depth)
        if named is not _NOTHING:
            return named
        if "default" in schema and fits(schema["default"], schema, self._root):
            return schema["default"]
        if values := self._values(schema):
            return values[0]
        if branches := alternatives(schema):
            return self._alternative([resolve(branch, self._root) for branch in branches], name, depth)
        return self._typed(schema, name, depth)

    def named(self, schema: Any, name: str, depth: int) -> Any:
        """The value that the text itself gives a field, or `_NOTHING`."""
        schema = resolve(schema, self._root)
        if depth > _DEEPEST:
            return _NOTHING
        if "const" in schema:
            return schema["const"]
        for value in self._material.known(name):
            if fits(value, schema, self._root):
                return value
        if isinstance(schema.get("enum"), list):
            spoken = (value for value in self._values(schema) if self._material.says(str(value)))
            return next(spoken, _NOTHING)
        for branch in alternatives(schema):
            branch = resolve(branch, self._root)
            # That something is null is nothing that a text says.
            if type_of(branch) != "null" and "const" not in branch:
                value = self.named(branch, name, depth + 1)
                if value is not _NOTHING:
                    return value
            elif "const" in branch and self._material.says(str(branch["const"])):
                return branch["const"]
        value = self._named_scalar(schema, name)
        return value if value is not _NOTHING and fits(value, schema, self._root) else _NOTHING

    def _named_scalar(self, schema: Schema, name: str) -> Any:
        kind = type_of(schema)
        if kind == "string" and "format" not in schema:
            stated = self._material.stated(name)
            return _NOTHING if stated is None else stated
        if kind == "boolean":
            affirmed = self._material.affirms(name)
            return _NOTHING if affirmed is None else affirmed
        if kind in ("integer", "number"):
            value = self._material.number_near(name)
            if value is not None:
                return int(value) if kind == "integer" else value
        return _NOTHING

    def _values(self, schema: Schema) -> list[Any]:
        """The values of an enumeration that the rest of the schema allows."""
        listed = schema.get("enum")
        return [value for value in listed if fits(value, schema, self._root)] if isinstance(listed, list) else []

    def _alternative(self, branches: list[Schema], name: str, depth: int) -> Any:
        if any(type_of(branch) == "null" for branch in branches):
            return None
        chosen = next((branch for branch in branches if self._is_tagged(branch)), None)
        if chosen is None and depth >= _DEEP:
            chosen = next((branch for branch in branches if type_of(branch) not in ("object", "array")), None)
        return self.fill(chosen or branches[0], name, depth + 1)

    def _is_tagged(self, branch: Schema) -> bool:
        """Whether the text names what tells an object from the other kinds of object in its place."""
        properties = branch.get("properties")
        tags = (resolve(part, self._root).get("const") for part in (properties or {}).values())
        return any(isinstance(tag, str) and self._material.says(tag) for tag in tags)

    def _typed(self, schema: Schema, name: str, depth: int) -> Any:
        match type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return scalars.integer(self._next_number(), schema)
            case "number":
                return scalars.number(self._next_number(), schema)
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return scalars.string(schema, name, self._material)

    def _next_number(self) -> float | int:
        value = self._material.number()
        return _NO_NUMBER if value is None else value

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = [name for name in schema.get("required", ()) if isinstance(name, str)]
        # A number that stands beside one field's name is not for the field that happens to come before it.
        filled = {name: self.named(part, name, depth + 1) for name, part in properties.items()}
        for name, part in properties.items():
            if filled[name] is _NOTHING and name in required:
                filled[name] = self.fill(part, name, depth + 1)
            elif filled[name] is _NOTHING:
                part = resolve(part, self._root)
                if "default" in part and fits(part["default"], part, self._root):
                    filled[name] = part["default"]
        value = {name: value for name, value in filled.items() if value is not _NOTHING}
        further = schema.get("additionalProperties", True)
        for name in required:
            if name not in value:
                value[name] = self.fill(further, name, depth + 1)
        for name in [*properties, *(f"item{number}" for number in range(1, _MOST_ITEMS) if further is not False)]:
            if len(value) >= schema.get("minProperties", 0):
                break
            if name not in value:
                value[name] = self.fill(properties.get(name, further), name, depth + 1)
        return value

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        value = [self.fill(part, name, depth + 1) for part in schema.get("prefixItems", ())]
        each = schema.get("items", {} if not value else False)
        least = min(schema.get("minItems", 0), _MOST_ITEMS)
        most = min(schema.get("maxItems", _MOST_ITEMS), _MOST_ITEMS)
        offered = self._items(resolve(each, self._root), name, depth) if each is not False and not value else []
        unique = schema.get("uniqueItems") is True
        for item in offered:
            if len(value) < most and not (unique and _is_in(item, value)):
                value.append(item)
        while len(value) < least and each is not False:
            item = self.fill(each, name, depth + 1)
            value.append(self._other(item, value, resolve(each, self._root)) if unique else item)
        return value

    def _items(self, each: Schema, name: str, depth: int) -> list[Any]:
        if depth >= _DEEP:
            return []
        kind = type_of(each)
        if values := self._values(each):
            return [value for value in values if self._material.says(str(value))] or values[:1]
        offered: list[Any] = []
        if kind in ("integer", "number"):
            offered = [int(value) if kind == "integer" else value for value in self._material.numbers()]
        elif kind == "string" and "format" not in each:
            offered = [scalars.of_length(text, each) for text in self._material.strings()]
        offered = [item for item in offered if fits(item, each, self._root)]
        return offered or [self.fill(each, name, depth + 1)]

    def _other(self, item: Any, taken: list[Any], each: Schema) -> Any:
        """A value like this one that is not taken yet, where there is one."""
        others: list[Any] = [item, *self._values(each)]
        match item:
            case bool():
                others.append(not item)
            case int() | float():
                step = each.get("multipleOf") or 1
                others += [item + sign * step * n for n in range(1, _MOST_ITEMS) for sign in (1, -1)]
            case str():
                numbered = (f"{item[: len(item) - len(str(n))]}{n}" for n in range(1, _MOST_ITEMS))
                others += [*(f"{item} {n}" for n in range(2, _MOST_ITEMS)), *numbered]
        free = (other for other in others if not _is_in(other, taken) and fits(other, each, self._root))
        return next(free, item)


def _is_in(item: Any, taken: list[Any]) -> bool:
    """Whether JSON has the same value in a list already: 1 is 1.0 there, and unlike Python's `true` is not 1."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        return any(item == other and not isinstance(other, bool) for other in taken)
    written = json.dumps(item, sort_keys=True)
    return any(json.dumps(other, sort_keys=True) == written for other in taken)
