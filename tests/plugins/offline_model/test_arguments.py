"""The schema filler: whatever schema and text, the value is valid; and it is the one that a reader would expect."""

import time
from typing import Any

import jsonschema
import pytest
from gateway_plugins.offline_model.arguments import fill
from gateway_plugins.offline_model.material import Material
from hypothesis import given, settings
from hypothesis import strategies as st

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
    kind = draw(st.sampled_from(["plain", "bounded", "pattern", "format"]))
    if kind == "bounded":
        schema["minLength"] = draw(st.integers(0, 30))
        schema["maxLength"] = schema["minLength"] + draw(st.integers(0, 30))
    elif kind == "pattern":
        schema["pattern"] = draw(st.sampled_from(["^[A-Z]{3}$", r"^\d{5}$", "^[a-z]+$", ".*", "[0-9]"]))
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
        schema["multipleOf"] = draw(st.sampled_from([0.5, 0.01, 2, 10]))
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
        return {"allOf": [schema, {"type": "object", "required": required[:1]}]}
    return schema


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> dict[str, Any]:
    # Drawn by hand: `one_of` flattens what it holds, and then nearly every schema is a union.
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
@given(schema=schemas(), text=TEXTS, output=TEXTS)
def test_a_filled_schema_is_valid(schema: dict[str, Any], text: str, output: str) -> None:
    schema = {**schema, "$defs": {"Tree": TREE}}
    value = fill(schema, Material(text, [output], known={"city": "Rome", "count": "many", "size": 3}))
    jsonschema.Draft202012Validator(schema).validate(value)


@settings(max_examples=100, deadline=None)
@given(each=st.one_of(integers(), st.just({"type": "string"}), st.just({"enum": list("abcde")})), text=TEXTS)
def test_unique_items_are_unique(each: dict[str, Any], text: str) -> None:
    schema = {"type": "array", "items": each, "uniqueItems": True, "minItems": 2, "maxItems": 4}
    if {"minimum", "exclusiveMinimum"} & each.keys() and {"maximum", "exclusiveMaximum"} & each.keys():
        schema["minItems"] = 0
    if each.get("multipleOf"):
        each = {"type": "integer", "multipleOf": each["multipleOf"]}
        schema["items"] = each
    jsonschema.Draft202012Validator(schema).validate(fill(schema, Material(text)))


def parameters(required: tuple[str, ...] | None = None, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties if required is None else required)}


STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}


@pytest.mark.parametrize(
    ("text", "city"),
    [
        ("What is the weather in Paris today?", "Paris"),
        ("Hi, I'm Bob. How is the weather in New York?", "New York"),
        ("Tell me the weather for Port of Spain, please", "Port of Spain"),
        ("weather in san francisco today", "san francisco"),
        ("paris weather?", "paris"),
        ('What about "Rio de Janeiro"?', "Rio de Janeiro"),
        ("On Monday, how is it in Rome?", "Rome"),
        ("city: Lima, units metric", "Lima"),
        ("how are you", "how are you"),
    ],
)
def test_a_single_string_is_the_likeliest_piece_of_the_message(text: str, city: str) -> None:
    assert fill(parameters(city=STRING), Material(text, topic=frozenset({"weather"}))) == {"city": city}


@pytest.mark.parametrize("name", ["input", "question", "user_request"])
def test_a_field_that_asks_for_the_message_gets_all_of_it(name: str) -> None:
    text = "Plan a trip to Rome, and tell Bob."
    assert fill(parameters(**{name: STRING}), Material(text)) == {name: text}


def test_each_field_gets_its_own_piece() -> None:
    schema = parameters(
        origin=STRING,
        destination=STRING,
        passengers=INTEGER,
        cabin={"enum": ["economy", "business"]},
    )
    text = "Book a flight to Rome from Paris in business for 3 passengers"
    expected = {"origin": "Paris", "destination": "Rome", "passengers": 3, "cabin": "business"}
    assert fill(schema, Material(text)) == expected


def test_a_piece_is_used_once() -> None:
    assert fill(parameters(one=STRING, other=STRING), Material("Compare Paris and Rome")) == {
        "one": "Paris",
        "other": "Rome",
    }


def test_numbers_are_taken_in_order_unless_they_stand_beside_a_name() -> None:
    schema = parameters(a=INTEGER, b={"type": "number"}, days=INTEGER)
    assert fill(schema, Material("7 days, then 1,000 and -2.5")) == {"a": 1000, "b": -2.5, "days": 7}


def test_numbers_keep_to_their_bounds() -> None:
    assert fill({"type": "integer", "minimum": 1, "maximum": 10}, Material("give me 99")) == 10
    assert fill({"type": "integer", "multipleOf": 7}, Material("about 20")) == 21


def test_a_default_stands_unless_the_message_names_a_value() -> None:
    schema = parameters(
        (),
        unit={"enum": ["celsius", "fahrenheit"], "default": "celsius"},
        days={"type": "integer", "default": 1},
        verbose={"type": "boolean", "default": False},
        note={"anyOf": [STRING, {"type": "null"}], "default": None},
        lang=STRING,
    )
    assert fill(schema, Material("the forecast, 12")) == {"unit": "celsius", "days": 1, "verbose": False, "note": None}
    told = fill(schema, Material("3 days in Fahrenheit, verbose, note: be brief"))
    assert told == {"unit": "fahrenheit", "days": 3, "verbose": True, "note": "be brief"}


def test_a_negated_switch_is_off() -> None:
    schema = parameters(notify={"type": "boolean"})
    assert fill(schema, Material("notify them")) == {"notify": True}
    assert fill(schema, Material("do it without notifying")) == {"notify": False}


def test_lists_take_all_there_is() -> None:
    assert fill({"type": "array", "items": {"type": "number"}}, Material("Add 1, 2.5 and 3")) == [1, 2.5, 3]
    assert fill({"type": "array", "items": STRING}, Material("Buy: apples, pears and plums")) == [
        "apples",
        "pears",
        "plums",
    ]


def test_a_tag_chooses_among_kinds_of_objects() -> None:
    def kind(tag: str) -> dict[str, Any]:
        return parameters(type={"const": tag}, legs=INTEGER)

    schema = {"oneOf": [kind("cat"), kind("dog")]}
    assert fill(schema, Material("a dog with 3 legs")) == {"type": "dog", "legs": 3}


def test_formats_and_arithmetic_are_found() -> None:
    schema = parameters(
        when={"type": "string", "format": "date"}, mail={"type": "string", "format": "email"}, expression=STRING
    )
    filled = fill(schema, Material("On 2024-05-06 tell ada@example.org that 12 * (3+4) is 84"))
    assert filled == {"when": "2024-05-06", "mail": "ada@example.org", "expression": "12 * (3+4)"}


def test_known_values_win_where_they_fit() -> None:
    schema = parameters(user_id=INTEGER, name=STRING)
    filled = fill(schema, Material("the orders of Ada", known={"user_id": 5, "name": 1}))
    assert filled == {"user_id": 5, "name": "Ada"}


def test_a_known_value_outside_of_the_bounds_is_not_taken() -> None:
    schema = parameters(size={"type": "number", "exclusiveMinimum": 3, "maximum": 9})
    assert fill(schema, Material("size it", known={"size": 3})) == {"size": 6}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "object", "required": ["x"]},
        {"$ref": "x.json"},
    ],
)
def test_schemas_that_nothing_satisfies_come_to_an_end(schema: dict[str, Any]) -> None:
    fill(schema, Material("anything"))


@pytest.mark.parametrize("piece", ["(", "a ", "1,000", '"', "In ", "-1+", " ", "a:", "x@", "don't "])
def test_a_long_message_is_read_in_time(piece: str) -> None:
    tags = {"type": "array", "items": STRING}
    schema = parameters(
        expression=STRING, city=STRING, count=INTEGER, email=STRING, is_open={"type": "boolean"}, tags=tags
    )
    started = time.process_time()
    fill(schema, Material(piece * (400_000 // len(piece))))
    assert time.process_time() - started < 2
