"""Conversion of chat messages: valid ones become input items of the SDK, others are rejected with their path."""

import pytest

from gateway_core.errors import InvalidRequestError
from gateway_core.http.chat.messages import parse_messages


def items(*messages):
    return list(parse_messages(list(messages)).items)


def test_text_messages():
    assert items({"role": "user", "content": "hi", "name": "ann"}, {"role": "assistant", "content": "hello"}) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]


def test_system_and_developer_messages_are_separated_at_any_position():
    conversation = parse_messages(
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi"},
            {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
        ]
    )
    assert conversation.system == "be kind\n\nbe brief"
    assert conversation.text == "hi"
    assert list(conversation.items) == [{"role": "user", "content": "hi"}]


def test_all_part_types():
    [message] = items(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "AA", "filename": "a.pdf"}},
            ],
        }
    )
    assert message["content"] == [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "input_file", "file_data": "AA", "filename": "a.pdf"},
    ]


def test_tool_calls_and_their_results():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert items(
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "2"}]},
    )[1:] == [
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ]


def test_the_last_user_message_is_the_text():
    conversation = parse_messages(
        [{"role": "user", "content": "one"}, {"role": "user", "content": [{"type": "text", "text": "two"}]}]
    )
    assert conversation.text == "two"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "function", "content": "hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": [1]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "video"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url.url"),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "messages[0].content[0].file"),
        ([{"role": "system", "content": None}], "messages[0].content"),
        ([{"role": "assistant", "content": 1}], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "messages[0].tool_calls[0].id"),
        ([{"role": "assistant", "tool_calls": [{"id": "c"}]}], "messages[0].tool_calls[0].function.name"),
        ([{"role": "tool", "tool_call_id": 1, "content": "x"}], "messages[0].tool_call_id"),
    ],
)
def test_invalid_messages_are_rejected_with_their_path(messages, param):
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages(messages)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_calls_and_results_that_do_not_fit_are_paired():
    call = {"id": "c", "function": {"name": "f"}}
    result = {"role": "tool", "tool_call_id": "c", "content": "1"}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        result,
        {"role": "assistant", "tool_calls": [call, {"function": {"name": "f"}}]},
        {"role": "tool", "content": "2"},
        result,
    ]
    items = parse_messages(messages).items
    ids = [item["call_id"] for item in items if item["type"] == "function_call"]
    assert len(set(ids)) == 3
    results = [(item["call_id"], item["output"]) for item in items if item["type"] == "function_call_output"]
    assert results == list(zip(ids, ["1", "1", "2"], strict=True))
