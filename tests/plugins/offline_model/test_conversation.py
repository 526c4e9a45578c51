"""Reading a run's input: every item that can come is understood or passed over."""

import json
from typing import Any

import pytest
from agents.handoffs import default_handoff_history_mapper
from agents.testing import assistant_message, function_call
from gateway_plugins.offline_model.conversation import Call, read
from hypothesis import given
from hypothesis import strategies as st

ODD: list[Any] = [
    None,
    7,
    [],
    [None, 3, "text", object(), {}, {"role": 5}, {"type": None}, [1]],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": 5}],
    [{"role": "user", "content": {"text": "x"}}],
    [{"role": "user", "content": [None, 1, "x", {"type": "input_text", "text": None}, {"type": 3}]}],
    [{"type": "function_call_output", "call_id": None, "output": [{"type": "input_image"}]}],
    [{"type": "function_call", "name": None, "call_id": 4, "arguments": "{"}],
    [{"type": "function_call_output", "output": {"deep": [1]}}, {"type": "reasoning", "summary": []}],
    [{"role": "assistant", "content": "<CONVERSATION HISTORY>\n1. odd\n2. : x\n3. {\n</CONVERSATION HISTORY>"}],
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_input_is_passed_over(odd: Any) -> None:
    read(odd)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "type", "content", "text", "output", "call_id", "name"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_passed_over(value: Any) -> None:
    read(value)


def test_calls_after_the_last_message_are_read_with_their_outputs() -> None:
    conversation = read(
        [
            {"role": "user", "content": "old"},
            {"type": "function_call", "name": "old", "call_id": "0", "arguments": "{}"},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": [{"type": "input_text", "text": "new"}, {"type": "input_image"}]},
            function_call("f", "{}", call_id="1"),
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "out"}]},
            {"type": "function_call", "name": "transfer_to_x", "call_id": "2", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "2", "output": '{"assistant": "X"}'},
        ]
    )
    assert (conversation.message, conversation.attachments, conversation.is_new) == ("new", 1, False)
    assert conversation.calls == (Call("f", "out"), Call("transfer_to_x", '{"assistant": "X"}'))
    assert conversation.handed_off
    assert conversation.outputs == ["out"]


def test_an_output_without_its_call_is_an_output() -> None:
    conversation = read([{"type": "function_call_output", "call_id": "1", "output": "out"}])
    assert conversation.outputs == ["out"]
    assert not conversation.has_message


@pytest.mark.parametrize("answer", [{"role": "assistant", "content": "Hello"}, assistant_message("Hello")])
def test_a_conversation_with_an_answer_is_not_new(answer: Any) -> None:
    assert not read([{"role": "user", "content": "a"}, answer, {"role": "user", "content": "b"}]).is_new


def test_json_is_no_answer_in_prose() -> None:
    items = [{"role": "assistant", "content": json.dumps({"class": "a"})}, {"role": "user", "content": "b"}]
    assert read(items).is_new


@pytest.mark.parametrize("text", ["one line", "two\nlines: 1. user: no"])
def test_history_that_the_sdk_nested_is_unfolded(text: str) -> None:

    items: list[Any] = [
        {"role": "user", "content": text},
        {"type": "function_call", "name": "transfer_to_b", "call_id": "1", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": '{"assistant": "B"}'},
    ]
    conversation = read(default_handoff_history_mapper(items))
    assert conversation.message == text
    assert conversation.handed_off
    assert conversation.is_new


def test_a_lone_surrogate_is_replaced() -> None:
    read("\ud800").message.encode()
