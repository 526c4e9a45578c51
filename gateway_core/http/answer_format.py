"""Parses the output format that a client asks for: `response_format` of a chat request, `text.format` of Responses."""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.types import AnswerFormat

MAX_SCHEMA_BYTES = 256 * 1024
_TYPES = "text, json_object, json_schema"


def parse_answer_format(given: Mapping[str, Any] | None, path: str, *, nested: bool) -> AnswerFormat | None:
    """Returns the format, or `None` for text.

    Args:
        given: The format, as the client sent it.
        path: Path of the format in the request.
        nested: Whether the schema is in the member `json_schema`, as in Chat Completions.

    Raises:
        InvalidRequestError: The type is unknown, or the schema is missing, too large or not a JSON Schema.
    """
    if given is None:
        return None
    match kind := json_fields.required_text(given, "type", f"{path}."):
        case "text":
            return None
        case "json_object":
            return AnswerFormat("json_object", {"type": "object"}, strict=False)
        case "json_schema":
            place = f"{path}.json_schema." if nested else f"{path}."
            if nested:
                given = json_fields.mapping(given, "json_schema", f"{path}.") or {}
            name = json_fields.text(given, "name", place) or "answer"
            schema = json_fields.mapping(given, "schema", place)
            if schema is None:
                raise InvalidRequestError(f"'{place}schema' is required", param=f"{place}schema")
            _check_schema(schema, f"{place}schema")
            return AnswerFormat(name, schema, strict=json_fields.boolean(given, "strict", place) or False)
        case _:
            raise json_fields.unsupported_value(f"{path}.type", kind, supported=_TYPES)


def _check_schema(schema: dict[str, Any], path: str) -> None:
    from jsonschema import Draft202012Validator, SchemaError

    if len(orjson.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise InvalidRequestError(f"'{path}' is larger than {MAX_SCHEMA_BYTES // 1024} KiB", param=path)
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        where = error.json_path if isinstance(error, SchemaError) else "$"
        raise InvalidRequestError(f"'{path}' is not a valid JSON Schema (at {where})", param=path) from error
