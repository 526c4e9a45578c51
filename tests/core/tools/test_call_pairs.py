"""Conversations whose calls and results do not fit get one result for each call, without a loss."""

import copy

import pytest

from gateway_core import pair_calls

USER = {"role": "user", "content": "x"}


def call(call_id, name="look"):
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}"}


def result(call_id, text):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


@pytest.mark.parametrize(
    ("items", "texts"),
    [
        ([call("a"), call("b"), result("b", "2"), result("a", "1")], ["1", "2"]),
        ([call("a"), call("a"), result("a", "1"), result("a", "2")], ["1", "2"]),
        ([call(None), call(""), result(None, "1"), result("", "2")], ["1", "2"]),
        ([call("a"), result("other", "1")], ["1"]),
        ([call("a")], ["(no result)"]),
        ([call("a"), call("b"), result("b", "2"), USER, result("a", "1")], ["1", "2"]),
        ([call("a"), result("a", "1"), call("a"), result("a", "2")], ["1", "2"]),
        ([call("a"), result("a", "1"), result("a", "1")], ["1"]),
        ([result("a", "1"), call("a"), call("b"), result("b", "2")], ["1", "2"]),
        ([call("a"), {"type": "reasoning", "summary": []}, call("b"), result("a", "1"), result("b", "2")], ["1", "2"]),
        ([call("a"), USER, call("b"), result("a", "1"), result("b", "2")], ["1", "2"]),
        ([call("a"), USER, call("a"), result("a", "2")], ["(no result)", "2"]),
    ],
)
def test_each_call_gets_one_result_directly_behind_its_round(items, texts):
    before = copy.deepcopy(items)
    paired = pair_calls([USER, *items, USER])
    assert items == before
    ids = [item["call_id"] for item in paired if item.get("type") == "function_call"]
    results = [item for item in paired if item.get("type") == "function_call_output"]
    assert len(set(ids)) == len(ids) == len(results)
    assert [each["call_id"] for each in results] == ids
    assert [each["output"] for each in results] == texts
    waiting = []
    for item in paired:
        if item.get("type") == "function_call":
            waiting.append(item["call_id"])
        elif item.get("type") == "function_call_output":
            assert item["call_id"] == waiting.pop(0)
        elif item.get("type") != "reasoning":
            assert not waiting
    assert paired.count(USER) == 2 + items.count(USER)


def test_a_result_without_a_call_is_kept_as_text():
    told = {"role": "user", "content": "Result of a tool: 42"}
    assert pair_calls([result("gone", [{"type": "input_text", "text": "42"}])]) == [told]
    assert pair_calls([call("a"), result("a", "1"), result("a", "42")])[2:] == [told]


def test_a_good_conversation_stays_as_it_is():
    items = [USER, call("a"), result("a", "1"), call("b"), call("c"), result("b", "2"), result("c", "3"), USER]
    assert pair_calls(items) == items
    assert pair_calls("text") == "text"
