"""JSON schemas of the requests and responses of the OpenAI-compatible endpoints.

The schemas leave out fields that the gateway ignores; clients may send additional fields. The reference pages document
each field.
"""

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]

ANYTHING: Schema = {"type": "object"}
TEXT: Schema = {"type": "string"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(low: float, high: float) -> Schema:
    return _or_null({"type": "number", "minimum": low, "maximum": high})


_COUNT: Schema = _or_null({"type": "integer", "minimum": 0, "maximum": 2**31})
_FLAG: Schema = _or_null({"type": "boolean"})

ERROR: Schema = _object(
    ("error",),
    error=_object(
        ("message", "type", "code", "param"),
        message=TEXT,
        type=TEXT,
        code=_or_null(TEXT),
        param=_or_null(TEXT),
    ),
)


def model_id(known: Sequence[str]) -> Schema:
    """Returns the schema of a model id. It allows any string, since ids ignore case and may begin with `default/`."""
    return {"anyOf": [{"enum": [*known]}, {"type": "string", "minLength": 1}]} if known else TEXT


MODEL: Schema = _object(
    ("id", "object", "created", "owned_by"),
    id=TEXT,
    object={"const": "model"},
    created={"type": "integer"},
    owned_by=TEXT,
)
MODELS: Schema = _object(("object", "data"), object={"const": "list"}, data=_list(MODEL))

_PART = {
    "anyOf": [
        _object(("type", "text"), type={"const": "text"}, text=TEXT),
        _object(
            ("type", "image_url"),
            type={"const": "image_url"},
            image_url=_object(("url",), url={"type": "string", "pattern": "^(https?|data):"}),
        ),
    ]
}
_MESSAGE = {
    "anyOf": [
        _object(("role", "content"), role={"enum": ["system", "developer"]}, content=TEXT),
        _object(("role", "content"), role={"const": "user"}, content={"anyOf": [TEXT, _list(_PART, 1)]}),
        _object(("role", "content"), role={"const": "assistant"}, content=_or_null(TEXT)),
    ]
}
CHAT: Schema = _object(
    ("model", "messages"),
    model={"$ref": "#/components/schemas/ModelId"},
    messages=_list(_MESSAGE, 1),
    stream=_FLAG,
    stream_options=_or_null(_object(include_usage=_FLAG)),
    temperature=_number(0, 2),
    top_p=_number(0, 1),
    frequency_penalty=_number(-2, 2),
    presence_penalty=_number(-2, 2),
    max_tokens=_COUNT,
    max_completion_tokens=_COUNT,
    metadata=_or_null({"type": "object", "additionalProperties": TEXT}),
)
_USAGE = _object(
    ("prompt_tokens", "completion_tokens", "total_tokens"),
    prompt_tokens={"type": "integer"},
    completion_tokens={"type": "integer"},
    total_tokens={"type": "integer"},
)
COMPLETION: Schema = _object(
    ("id", "object", "created", "model", "choices", "usage"),
    id=TEXT,
    object={"const": "chat.completion"},
    created={"type": "integer"},
    model=TEXT,
    choices=_list(
        _object(
            ("index", "message", "finish_reason"),
            index={"type": "integer"},
            message=_object(("role", "content"), role={"const": "assistant"}, content=_or_null(TEXT)),
            finish_reason={"enum": ["stop", "tool_calls", "content_filter", "length"]},
        ),
        1,
    ),
    usage=_USAGE,
)

RESPONSE_REQUEST: Schema = _object(
    ("model", "input"),
    model={"$ref": "#/components/schemas/ModelId"},
    input={
        "anyOf": [
            TEXT,
            _list(
                _object(("role", "content"), role={"enum": ["user", "assistant", "system", "developer"]}, content=TEXT),
                1,
            ),
        ]
    },
    instructions=_or_null(TEXT),
    stream=_FLAG,
    store=_FLAG,
    previous_response_id=_or_null(TEXT),
    temperature=_number(0, 2),
    top_p=_number(0, 1),
    max_output_tokens=_COUNT,
    metadata=_or_null({"type": "object", "additionalProperties": TEXT}),
)
RESPONSE: Schema = _object(
    ("id", "object", "created_at", "status", "model", "output"),
    id=TEXT,
    object={"const": "response"},
    created_at={"type": "number"},
    status={"enum": ["completed", "incomplete", "failed", "in_progress", "cancelled"]},
    model=TEXT,
    output=_list(_object(("type",), type=TEXT)),
)
UPDATE: Schema = _object(("metadata",), metadata={"type": "object", "additionalProperties": TEXT})
DELETED: Schema = _object(("id", "object", "deleted"), id=TEXT, object=TEXT, deleted={"const": True})
LIST: Schema = _object(("object", "data"), object={"const": "list"}, data=_list(ANYTHING))
RUN: Schema = _object(("id", "status"), id=TEXT, status={"enum": ["in_progress", "completed", "failed", "cancelled"]})
ORDER: Schema = {"enum": ["asc", "desc"]}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 100}
PAGE = {"order": ORDER, "after": TEXT, "limit": LIMIT}
RESUME: dict[str, Schema] = {"stream": {"type": "boolean"}, "starting_after": {"type": "integer", "minimum": 0}}
STREAM = {"text/event-stream": TEXT}
PLAIN = {"text/plain": TEXT}
