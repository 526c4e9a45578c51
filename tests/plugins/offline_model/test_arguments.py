"""The schema filler: the value is valid for every schema and text, and simple rules take it from the text."""

import time
from datetime import date
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from agents import function_tool
from gateway_plugins.offline_model.arguments import fill, words
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

NAMES = st.sampled_from(["city", "count", "query", "unit", "to", "email", "start_date", "is_open", "size", "tags"])
TEXTS = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "",
            "What is the weather in Paris today?",
            'Send "hello there" to bob@example.com at 2024-05-06, 3 times, count: 12, city=Oslo',
            "apples, pears and plums; 1, 2.5, -7, 1,000",
            "red blue 0",
        ]
    ),
)


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    kind = draw(st.sampled_from(["plain", "bounded", "format"]))
    if kind == "bounded":
        schema["minLength"] = draw(st.integers(0, 30))
        schema["maxLength"] = schema["minLength"] + draw(st.integers(0, 30))
    elif kind == "format":
        schema["format"] = draw(st.sampled_from(["date", "date-time", "time", "uuid", "email", "ipv4", "uri", "odd"]))
    return schema


@st.composite
def integers(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    low = draw(st.integers(-1000, 1000))
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(2, 50))
    elif draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 5000))
    if draw(st.booleans()) and schema.keys() == {"type"}:
        schema["default"] = draw(st.integers(-5, 5))
    return schema


@st.composite
def reals(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "number"}
    low = draw(st.floats(-1e6, 1e6))
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.floats(0.5, 100))
    elif draw(st.booleans()) and "exclusiveMinimum" not in schema:
        schema["multipleOf"] = draw(st.sampled_from([0.5, 2, 10]))
    return schema


ENUMS = st.lists(st.sampled_from(["red", "blue", "green", 1, None]), min_size=1, unique=True)
ODDITIES: list[dict[str, Any]] = [
    {},
    {"type": "boolean"},
    {"type": "null"},
    {"const": "cat"},
    {"const": None},
    {"type": ["string", "null"]},
    {"type": ["integer", "string"]},
    {"$ref": "#/$defs/Tree"},
]


@st.composite
def scalars(draw: st.DrawFn) -> dict[str, Any]:
    match draw(st.sampled_from(["string", "integer", "number", "enum", "odd"])):
        case "string":
            return draw(strings())
        case "integer":
            return draw(integers())
        case "number":
            return draw(reals())
        case "enum":
            return {"enum": draw(ENUMS)}
        case _:
            return draw(st.sampled_from(ODDITIES))


@st.composite
def arrays(draw: st.DrawFn, items: st.SearchStrategy[Any]) -> dict[str, Any]:
    if draw(st.booleans()):
        parts = draw(st.lists(items, min_size=1, max_size=3))
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    schema: dict[str, Any] = {"type": "array", "items": draw(items)}
    if draw(st.booleans()):
        schema["minItems"] = draw(st.integers(0, 4))
        schema["maxItems"] = schema["minItems"] + draw(st.integers(0, 2))
    return schema


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, values, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    if draw(st.booleans()):
        return {"allOf": [schema], "description": "As Pydantic and OpenAPI write it."}
    return schema


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> dict[str, Any]:
    # Drawn by hand: `one_of` flattens nested strategies, and then nearly every schema is a union.
    inner = schemas(depth - 1)
    match draw(st.sampled_from(["scalar", "scalar", "array", "object", "union", "nullable"] if depth else ["scalar"])):
        case "array":
            return draw(arrays(inner))
        case "object":
            return draw(objects(inner))
        case "union":
            return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
        case "nullable":
            return {"anyOf": [draw(inner), {"type": "null"}], "default": None}
        case _:
            return draw(scalars())


TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
    },
    "required": ["name", "left", "children"],
    "additionalProperties": False,
}


@settings(max_examples=400, deadline=None)
@given(schema=schemas(), text=TEXTS)
def test_a_filled_schema_is_valid(schema: dict[str, Any], text: str) -> None:
    schema = {**schema, "$defs": {"Tree": TREE}}
    jsonschema.Draft202012Validator(schema).validate(fill(schema, text))


def parameters(required: tuple[str, ...] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}


@pytest.mark.parametrize(
    ("text", "city"),
    [
        ("What is the weather in Paris today?", "Paris"),
        ("How is the weather in New York?", "New York"),
        ("Is it warm in Málaga, Spain?", "Málaga"),
        ('What about "Rio de Janeiro"?', "Rio de Janeiro"),
        ("What about “rome”?", "rome"),
        ("how are you", "how are you"),
        ("Paris", "Paris"),
    ],
)
def test_a_string_is_the_quoted_text_or_capitalized_words_or_all_of_the_text(text: str, city: str) -> None:
    assert fill(parameters(city=STRING), text) == {"city": city}


@pytest.mark.parametrize("name", ["input", "question", "user_request"])
def test_a_field_that_asks_for_the_message_gets_all_of_it(name: str) -> None:
    text = "Plan a trip to Rome, and tell Bob."
    assert fill(parameters(**{name: STRING}), text) == {name: text}


def test_a_string_for_a_number_gets_a_number() -> None:
    assert fill(parameters(invoice_number=STRING), "Is invoice 1002 paid?") == {"invoice_number": "1002"}


def test_each_value_is_used_once() -> None:
    schema = parameters(
        destination=STRING, origin=STRING, passengers=INTEGER, cabin={"enum": ["economy", "business"]}, days=INTEGER
    )
    text = "Book a flight to Rome from Paris in Business for 3 passengers and 1,200 days"
    expected = {"destination": "Rome", "origin": "Paris", "passengers": 3, "cabin": "business", "days": 1200}
    assert fill(schema, text) == expected


def test_numbers_are_found_but_not_in_dates_and_words() -> None:
    numbers = {"type": "array", "items": {"type": "number"}}
    assert fill(numbers, "Add 1, 2.5, -7 and 1,000.") == [1, 2.5, -7, 1000]
    assert fill(numbers, "On 2024-05-06, b2b, 2nd and 3-4") == []


def test_numbers_keep_to_their_bounds() -> None:
    assert fill({"type": "integer", "minimum": 1, "maximum": 10}, "give me 99") == 10
    assert fill({"type": "integer", "exclusiveMaximum": 10}, "give me 99") == 9
    assert fill({"type": "integer", "multipleOf": 7}, "about 20") == 21


def test_a_default_stands_unless_the_text_has_a_number_or_a_member() -> None:
    schema = parameters(
        (),
        unit={"enum": ["celsius", "fahrenheit"], "default": "celsius"},
        days={"type": "integer", "default": 1},
        verbose={"type": "boolean", "default": False},
        note={"anyOf": [STRING, {"type": "null"}], "default": None},
        limit={"anyOf": [INTEGER, {"type": "null"}]},
        lang=STRING,
    )
    unnamed = {"unit": "celsius", "days": 1, "verbose": False, "note": None}
    assert fill(schema, "the forecast") == unnamed
    told = fill(schema, "3 days in Fahrenheit, 5 lines")
    assert told == {**unnamed, "unit": "fahrenheit", "days": 3, "limit": 5}


def test_a_strict_schema_with_optional_fields_is_filled() -> None:
    @function_tool
    def search(query: str, near: str | None = None, limit: int = 10, tags: list[str] | None = None) -> str:
        return ""

    assert set(search.params_json_schema["required"]) == {"query", "near", "limit", "tags"}
    filled = fill(search.params_json_schema, "Find cafés")
    assert filled == {"query": "Find cafés", "near": None, "limit": 10, "tags": None}


def test_nested_objects_and_references_are_filled() -> None:
    class Leg(BaseModel):
        kind: Literal["leg"]
        city: str
        day: date

    class Trip(BaseModel):
        legs: Annotated[list[Leg], Field(min_length=2)]
        pair: tuple[int, str]

    value = fill(Trip.model_json_schema(), "From Rome to Oslo, 3")
    assert [leg.city for leg in Trip.model_validate(value).legs] == ["Rome", "Oslo"]
    assert value["pair"][0] == 3


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "object", "required": ["x"]},
        {"type": "object", "properties": None, "required": None},
        {"$ref": "x.json"},
        parameters(**{name: {"$ref": "#"} for name in "abcdefgh"}),
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**12},
    ],
)
def test_schemas_that_nothing_satisfies_terminate(schema: dict[str, Any]) -> None:
    fill(schema, "anything")


@pytest.mark.parametrize("piece", ["(", "a ", "1,000", '"', "In ", "-1+", " ", "a:", "x@", "don't ", "9"])
def test_a_long_message_is_read_in_time(piece: str) -> None:
    schema = parameters(city=STRING, count=INTEGER, size={"enum": ["s", "m"]}, tags={"type": "array", "items": STRING})
    started = time.process_time()
    fill(schema, piece * (400_000 // len(piece)))
    assert time.process_time() - started < 2


def test_words_leave_out_what_says_nothing() -> None:
    assert words("What is the weather, please?") == {"weather"}
    assert words("transfer_to_billing_agent") == {"billing"}
    assert words("look_up_invoice") & words("My INVOICES") == {"invoice"}


def test_only_the_beginning_of_a_long_text_is_searched():
    assert words("weather " + "w" * 5000 + " forecast") == {"weather", "w" * 3992}
