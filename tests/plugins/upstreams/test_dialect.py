"""The forms in which model servers answer become OpenAI's: tables of odd ones, and a property of all."""

import copy
import json

import pytest
from gateway_plugins.upstreams.conversation import replay_rule, with_media
from gateway_plugins.upstreams.dialect import Answer, merge_chunks
from gateway_plugins.upstreams.framing import DialectError
from gateway_plugins.upstreams.structured_text import json_within
from hypothesis import given, settings
from hypothesis import strategies as st

MISSING = object()
FIELDS = [
    "choices", "delta", "message", "content", "tool_calls", "function_call", "function", "name", "arguments", "id",
    "index", "finish_reason", "usage", "text", "type", "reasoning", "reasoning_content", "refusal", "role", "logprobs",
]  # fmt: skip


def part(name="look", arguments="{}", **more):
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not MISSING}
    return {"type": "function", "function": function, **more}


def chunk(finish=None, index=0, **delta):
    return {"id": "x", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def streamed(parts, known=()):
    """The tool calls of a stream with these parts, one in each chunk."""
    answer = Answer(set(known), tools=TOOLS)
    chunks = [answer.chunk(chunk(tool_calls=[each])) for each in parts]
    assert all(each["choices"] == [] for each in chunks)
    answer.chunk(chunk("tool_calls"))
    return answer.end()["choices"][0]["delta"].get("tool_calls", [])


def whole(parts, known=()):
    value = {"choices": [{"index": 0, "message": {"tool_calls": parts}, "finish_reason": "tool_calls"}]}
    return Answer(set(known), tools=TOOLS).whole(value)["choices"][0]["message"].get("tool_calls", [])


def shown(calls):
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


OSLO, ROME = '{"city": "Oslo"}', '{"city": "Rome"}'
TOOLS = frozenset({"look", "look_up", "now.utc"})
TWO = [("look", {"city": "Oslo"}), ("look", {"city": "Rome"})]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part(arguments=OSLO, id="a", index=0), part(arguments=ROME, id="b", index=1)], TWO),
        ([part(arguments=OSLO, id="a", index=0), part(arguments=ROME, id="b", index=0)], TWO),
        ([part(arguments=OSLO, id="a", index=0), part(arguments=ROME, id="a", index=0)], TWO),
        ([part(arguments=OSLO, id="a"), part(arguments=ROME, id="b")], TWO),
        ([part(arguments=OSLO, index=0), part(arguments=ROME, index=0)], TWO),
        ([part(arguments=OSLO), part(arguments=ROME)], TWO),
        ([part(arguments=OSLO, id="", index=0), part(arguments=ROME, id=None, index=1)], TWO),
        ([part(arguments={"city": "Oslo"}, index=0), part(arguments={"city": "Rome"}, index=1)], TWO),
        ([part(arguments="{}", id="a", index=0), part(MISSING, OSLO, index=0)], TWO[:1]),
        ([part(arguments="", id="a", index=0), *(part(MISSING, char, index=0) for char in OSLO)], TWO[:1]),
        ([part(arguments="", id="a", index=0), *(part(MISSING, char) for char in OSLO)], TWO[:1]),
        ([part(arguments="", id="a", index=0), *(part(MISSING, c, index=i) for i, c in enumerate(OSLO, 1))], TWO[:1]),
        ([part(arguments='{"city"', id="a", index=0), part(arguments=': "Oslo"}', id="a", index=0)], TWO[:1]),
        ([part(arguments=None, id="a", index=0)], [("look", {})]),
        ([{"index": 0, "name": "look", "arguments": OSLO}], TWO[:1]),
        ([part(arguments='{"city"', index=0), part(MISSING, OSLO, index=0)], TWO[:1]),
        ([part(arguments='{"city"', index=0), part(arguments=OSLO, index=0)], TWO[:1]),
        (
            [part("look_", "", id="a", index=0), part("up", "", index=0), part(MISSING, "{}", index=0)],
            [("look_up", {})],
        ),
        ([part("look", OSLO, index=0), part("look_up", "{}", index=1)], [*TWO[:1], ("look_up", {})]),
        (
            [
                part(arguments="", id="a", index=0),
                part(arguments="", id="b", index=1),
                part(MISSING, OSLO, index=0),
                part(MISSING, ROME, index=1),
            ],
            TWO,
        ),
    ],
)
def test_the_parts_of_streamed_calls_are_put_together(parts, expected):
    calls = streamed(parts)
    assert shown(calls) == expected
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(call["id"] and call["type"] == "function" for call in calls)


@pytest.mark.parametrize(
    "parts",
    [
        [part(arguments="{}", id="a"), part(arguments="{}", id="a")],
        [part(arguments="{}"), part(arguments="{}")],
        [part(arguments={}), part(arguments=None)],
    ],
)
def test_each_entry_of_a_whole_answer_is_a_call(parts):
    calls = whole(parts)
    assert shown(calls) == [("look", {})] * 2
    assert len({call["id"] for call in calls}) == 2
    assert all("index" not in call for call in calls)


@pytest.mark.parametrize("read", [whole, streamed])
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (part(arguments=json.dumps(OSLO)), TWO[0]),
        (part(arguments=" \n"), ("look", {})),
        (part(arguments="null"), ("look", {})),
        (part(arguments='""'), ("look", {})),
        (part(" look\n", OSLO), TWO[0]),
        (part("functions.look", OSLO), TWO[0]),
        (part("default_api.look", OSLO), TWO[0]),
        (part("now.utc"), ("now.utc", {})),
        (part("other.thing"), ("other.thing", {})),
    ],
)
def test_names_and_arguments_are_read_as_they_are_meant(entry, expected, read):
    assert shown(read([entry])) == [expected]


@pytest.mark.parametrize("read", [streamed, whole])
def test_an_id_of_the_conversation_is_not_used_again(read):
    [call] = read([part(id="functions.look:0", index=0)], known={"functions.look:0"})
    assert call["id"] != "functions.look:0"
    [call] = read([part(id="functions.look:1", index=0)], known={"functions.look:0"})
    assert call["id"] == "functions.look:1"


@pytest.mark.parametrize("read", [streamed, whole])
def test_fields_of_the_provider_stay_on_a_call(read):
    signature = {"google": {"thought_signature": "abc"}}
    [call] = read([part(id="a", index=0, extra_content=signature)])
    assert call["extra_content"] == signature


def test_the_old_function_call_is_a_tool_call():
    answer = Answer()
    answer.chunk(chunk(function_call={"name": "look", "arguments": ""}))
    answer.chunk(chunk(function_call={"arguments": OSLO}))
    answer.chunk(chunk("function_call"))
    assert shown(answer.end()["choices"][0]["delta"]["tool_calls"]) == TWO[:1]
    assert answer.finish_reason == "tool_calls"


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.dictionaries(st.text(max_size=4), st.integers())), max_size=4)
)
def test_calls_in_openais_form_stay_as_they_are(calls):
    parts = []
    for index, (name, arguments) in enumerate(calls):
        text = json.dumps(arguments)
        parts.append(part(name, "", id=f"call_{index}", index=index))
        parts += [part(MISSING, text[at : at + 3], index=index) for at in range(0, len(text), 3)]
    found = streamed(parts)
    assert shown(found) == calls
    assert [call["id"] for call in found] == [f"call_{index}" for index in range(len(calls))]


@pytest.mark.parametrize(
    ("delta", "text", "reasoning"),
    [
        ({"content": "a"}, "a", None),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab", None),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}]}, None, "t"),
        ({"content": "a", "reasoning": "t", "reasoning_content": "t"}, "a", "t"),
        ({"content": ["a", "b"]}, "ab", None),
        ({"content": "a", "thinking": "t"}, "a", "t"),
        ({"content": "a", "reasoning_content": [{"type": "text", "text": "t"}]}, "a", "t"),
        ({"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "t"}]}, "a", "t"),
        ({"content": "a", "reasoning": "t", "reasoning_details": [{"summary": "t"}], "thinking": "t"}, "a", "t"),
        ({"content": None, "audio": {"id": "x", "transcript": "a"}}, "a", None),
    ],
)
def test_text_and_reasoning_are_found_in_their_places(delta, text, reasoning):
    for place in ("delta", "message"):
        for index in (0, 3, None):
            value = {"choices": [{place: copy.deepcopy(delta), "finish_reason": None, "index": index}]}
            [choice] = Answer().chunk(value)["choices"]
            assert choice["index"] == 0
            assert choice["delta"].get("content") == text
            assert choice["delta"].get("reasoning_content") == reasoning
            assert "reasoning" not in choice["delta"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("model_length", "length"),
        ("recitation", "content_filter"),
        ("something_new", "unknown"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("tool_use", "tool_calls"),
        ("", None),
        (None, None),
    ],
)
def test_finish_reasons_are_openais(given, expected):
    answer = Answer()
    assert answer.chunk(chunk(given, content="x"))["choices"][0]["finish_reason"] is None
    assert answer.finish_reason == expected
    if expected is None:
        with pytest.raises(DialectError, match="finish reason"):
            answer.end()
    else:
        answer.end()
        assert answer.finish_reason == ("stop" if expected == "unknown" else expected)


def test_an_unknown_finish_reason_ends_an_answer_with_output_only_and_is_logged_once(caplog):
    unknown = "brand_new_" + "x" * 100
    for _ in range(2):
        answer = Answer()
        answer.chunk(chunk(unknown, content="x"))
        assert answer.end()["choices"][0]["finish_reason"] == "stop"
    [record] = caplog.records
    assert "brand_new_" in record.getMessage()
    assert len(record.getMessage()) < 150
    called = Answer()
    called.chunk(chunk(unknown, tool_calls=[part(id="a")]))
    assert called.end()["choices"][0]["finish_reason"] == "tool_calls"
    empty = Answer()
    empty.chunk(chunk(unknown))
    with pytest.raises(DialectError, match="unknown finish reason"):
        empty.end()


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL", "aborted", 7])
def test_a_finish_reason_that_means_a_failure_is_an_error(reason):
    with pytest.raises(DialectError):
        Answer().chunk(chunk(reason, content="x"))


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ([part(arguments=MISSING), part(arguments=MISSING)], 2),
        ([part(arguments=""), part(arguments="")], 2),
        ([part(arguments="{}"), part(arguments="{}")], 2),
        ([part(arguments="{}", index=0), part(arguments="{}", index=0)], 2),
        ([part(arguments=MISSING, index=0), part(arguments=MISSING, index=1)], 2),
        ([part(arguments=MISSING, id="a"), part(arguments=MISSING, id="b")], 2),
        ([part(arguments="", index=0), part(arguments="", index=0)], 1),
        ([part(arguments="", id="a"), part(arguments="", id="a")], 1),
        ([part(arguments=""), part(arguments="{}")], 1),
    ],
)
def test_equal_calls_without_arguments_are_told_apart(parts, count):
    calls = streamed(parts)
    assert shown(calls) == [("look", {})] * count
    assert len({call["id"] for call in calls}) == count


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (["length", "stop"], "length"),
        (["content_filter", "stop"], "content_filter"),
        (["stop", "length"], "length"),
        (["model_context_window_exceeded"], "length"),
        (["incomplete"], "length"),
        (["PROHIBITED_CONTENT"], "content_filter"),
    ],
)
def test_a_later_stop_makes_no_half_answer_whole(reasons, expected):
    answer = Answer()
    for reason in reasons:
        answer.chunk(chunk(reason, content="x"))
    assert answer.end()["choices"][0]["finish_reason"] == expected


def test_calls_and_text_after_a_finish_reason_are_kept():
    answer = Answer()
    answer.chunk(chunk("tool_calls", tool_calls=[part(arguments=OSLO, id="a", index=0)]))
    answer.chunk(chunk("tool_calls", tool_calls=[part(arguments=ROME, id="b", index=0)]))
    late = answer.chunk(chunk(content="late"))
    assert late["choices"][0]["delta"]["content"] == "late"
    [choice] = answer.end()["choices"]
    assert shown(choice["delta"]["tool_calls"]) == TWO
    assert [call["index"] for call in choice["delta"]["tool_calls"]] == [0, 1]


def test_all_choices_are_one():
    both = {"choices": [{"delta": {"content": "A"}, "index": 0}, {"delta": {"content": "B"}, "index": 1}]}
    assert Answer().chunk(both)["choices"][0]["delta"]["content"] == "AB"
    first = {"message": {"content": "text"}, "finish_reason": "stop"}
    second = {"message": {"tool_calls": part(arguments=OSLO)}, "finish_reason": "stop"}
    [choice] = Answer().whole({"choices": [first, second]})["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("text", "tool_calls")
    assert shown(choice["message"]["tool_calls"]) == TWO[:1]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6), max_size=4))
def test_nothing_that_a_server_sends_raises_anything_else(values):
    answer = Answer(structured=len(values) % 2 == 0)
    try:
        for value in values:
            json.dumps(answer.chunk(value))
        json.dumps(answer.end())
    except DialectError:
        pass
    for value in values:
        try:
            json.dumps(Answer(structured=True).whole(value))
        except DialectError:
            continue


@pytest.mark.parametrize("reason", ["error", "ERROR", "insufficient_system_resource", "malformed_function_call"])
def test_a_failed_answer_is_an_error(reason):
    with pytest.raises(DialectError):
        Answer().chunk(chunk(reason))
    with pytest.raises(DialectError):
        Answer().whole({"choices": [{"message": {"content": "half"}, "finish_reason": reason}]})


@pytest.mark.parametrize("names", [("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")])
@pytest.mark.parametrize("place", ["top", "choice", "delta", "x_groq"])
def test_usage_is_found_in_its_place(place, names):
    usage = {**dict(zip(names, (5, 2), strict=True)), "total_tokens": 7, "cached_tokens": 3}
    value = chunk("stop")
    choice = value["choices"][0]
    target = {"top": value, "choice": choice, "delta": choice["delta"]}.get(place)
    if target is None:
        target = value["x_groq"] = {}
    target["usage"] = usage
    answer = Answer()
    assert answer.chunk(value)["usage"] is None
    found = answer.end()["usage"]
    assert found == {**Answer().whole(value)["usage"]}
    assert (found["prompt_tokens"], found["completion_tokens"], found["total_tokens"]) == (5, 2, 7)
    assert found["prompt_tokens_details"]["cached_tokens"] == 3


def test_zeros_at_the_end_are_not_the_usage():
    answer = Answer()
    answer.chunk({**chunk(), "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
    answer.chunk({**chunk("stop"), "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})
    assert answer.end()["usage"]["total_tokens"] == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("```\n[1]\n```", "[1]"),
        ('<think>{"no": 1}</think>\n{"a": 1}', '{"a": 1}'),
        ('Here it is: {"a": 1}. Bye', '{"a": 1}'),
        ('{"a": 1}\n```', '{"a": 1}'),
        ('{"a": "}"} Hope this helps', '{"a": "}"}'),
        ('[note] {"a": 1}', '{"a": 1}'),
        ('Here: [{"a": 1}]', '[{"a": 1}]'),
        ('{"a": 1}\n\nHope {that} helps', '{"a": 1}'),
        ('{"a": 1}\n{"b": [1, 2, 3]}', '{"a": 1}'),
        ('Using {braces}: {"a": 1}', '{"a": 1}'),
        ('<thinking>{"b": 2}, so</thinking>{"answer": 1}', '{"answer": 1}'),
        ('```json\n{"a": "```"}\n```', '{"a": "```"}'),
        ('Sure.\n\n  {"a": 1} [1]', '{"a": 1}'),
        ('\n\n  {"a": 1}', '{"a": 1}'),
        ("no JSON", "no JSON"),
        ("{broken", "{broken"),
        ('Cut: {"a": {"b": 1}, "c', 'Cut: {"a": {"b": 1}, "c'),
    ],
)
def test_json_is_found_within_other_text(text, expected):
    assert json_within(text) == expected
    for size in (1, 3, 100):
        answer, sent = Answer(structured=True), ""
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for value in [*(chunk(content=piece) for piece in pieces), chunk("stop")]:
            for choice in answer.chunk(value)["choices"]:
                sent += choice["delta"].get("content") or ""
        sent += answer.end()["choices"][0]["delta"].get("content") or ""
        assert sent == expected
    value = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    assert Answer(structured=True).whole(value)["choices"][0]["message"]["content"] == expected


def test_a_stream_is_merged_to_a_whole_answer():
    chunks = [
        chunk(role="assistant", content="He"),
        chunk(content="llo", tool_calls=[part(arguments=OSLO, id="a", index=0)]),
        {**chunk("tool_calls"), "usage": {"total_tokens": 3}},
    ]
    value = merge_chunks(Answer(), chunks)
    message = value["choices"][0]["message"]
    assert message["content"] == "Hello"
    assert shown(message["tool_calls"]) == TWO[:1]
    assert value["usage"]["total_tokens"] == 3
    with pytest.raises(DialectError):
        merge_chunks(Answer(), [chunk(content="half")])


class Context:
    def __init__(self, origin):
        self.reasoning = type("Reasoning", (), {"origin_model": origin})


@pytest.mark.parametrize(
    ("setting", "model", "base_url", "expected"),
    [
        ("auto", "gpt-5", "https://api.openai.com/v1", False),
        ("auto", "kimi-k2-thinking", "http://127.0.0.1:8001/v1", True),
        ("auto", "our-alias", "https://api.moonshot.ai/v1", True),
        ("auto", "DeepSeek-V4", "http://127.0.0.1:8001/v1", True),
        ("reasoning_content", "our-alias", "http://127.0.0.1:8001/v1", True),
        ("none", "kimi-k2-thinking", "http://127.0.0.1:8001/v1", False),
    ],
)
def test_reasoning_is_sent_back_where_it_is_wanted(setting, model, base_url, expected):
    rule = replay_rule(setting, model, base_url)
    assert rule(Context(model)) is rule(Context(None)) is expected
    assert rule(Context("another")) is False


def test_images_of_tools_move_to_a_user_message():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    text = {"type": "input_text", "text": "done"}
    output = {"type": "function_call_output", "call_id": "a", "output": [text, image]}
    other = {"type": "function_call_output", "call_id": "b", "output": "plain"}
    items = [{"role": "user", "content": "x"}, output, other, {"role": "user", "content": "y"}]
    moved = with_media(items)
    assert [item.get("type") or item["role"] for item in moved] == [
        "user",
        "function_call_output",
        "function_call_output",
        "user",
        "user",
    ]
    assert image not in moved[1]["output"]
    assert moved[3]["content"][1:] == [image]
    assert with_media("text") == "text"
    assert with_media(items[2:]) is not None
    assert output["output"] == [text, image]


def test_the_number_of_calls_and_the_length_of_arguments_are_limited():
    with pytest.raises(DialectError, match="characters of arguments"):
        streamed([part(arguments='"' + "x" * 600_000, index=0), {"index": 0, "function": {"arguments": "x" * 600_000}}])
    with pytest.raises(DialectError, match="more than 1000"):
        whole([part(id=f"c{number}") for number in range(1001)])
