"""Stored responses: conversations have limits and are stored once; an answer that cannot be stored is still sent."""

import asyncio
import json

import openai
import orjson
import pytest
from agents import Agent

from gateway_core.errors import UnavailableError
from gateway_core.hooks.specs import hookimpl
from gateway_core.storage.memory_record_store import MemoryRecordStore
from gateway_core.testing import gateway_in_memory, script

NO_SESSIONS = {"sessions": {"enabled": False}}


def agent(*turns: str) -> Agent:
    return Agent(name="w", model=script(*turns))


def limits(**http) -> dict:
    return {"http": http, "plugins": NO_SESSIONS}


def stored_bytes(g) -> int:
    return sum(len(value) for value, _ in g.gateway.records._records.values())


class FailingStore(MemoryRecordStore):
    async def put(self, *_, **__):
        raise UnavailableError("disk full", code="state_not_writable")


class BrokenStore(MemoryRecordStore):
    async def put(self, *_, **__):
        raise OSError("disk full")


class Failing:
    store: type = FailingStore

    def __init__(self, *_):
        pass

    @hookimpl
    def record_store(self):
        return self.store()


class Broken(Failing):
    store = BrokenStore


async def test_a_conversation_has_a_maximum_size():
    async with gateway_in_memory({"W": agent("a", "b", "c")}, config=limits(max_conversation=3000)) as g:
        first = await g.openai.responses.create(model="W", input="x" * 1000)
        second = await g.openai.responses.create(model="W", input="x" * 1000, previous_response_id=first.id)
        with pytest.raises(openai.APIStatusError, match="max_conversation") as caught:
            await g.openai.responses.create(model="W", input="x" * 1000, previous_response_id=second.id)
        assert (caught.value.status_code, caught.value.code) == (413, "conversation_too_large")
        assert (await g.openai.responses.create(model="W", input="x", previous_response_id=first.id)).output_text == "c"


@pytest.mark.parametrize(
    ("setting", "limit", "content"),
    [("max_messages", 4, "x"), ("max_parts", 5, [{"type": "input_text", "text": "x"}] * 2)],
)
async def test_a_conversation_has_a_maximum_number_of_items_and_parts(setting, limit, content):
    async with gateway_in_memory({"W": agent(*"abcdef")}, config=limits(**{setting: limit})) as g:
        given = [{"role": "user", "content": content}]
        first = await g.openai.responses.create(model="W", input=given)
        answer = await g.openai.responses.create(model="W", input=given, previous_response_id=first.id)
        with pytest.raises(openai.APIStatusError, match=setting) as caught:
            await g.openai.responses.create(model="W", input=given, previous_response_id=answer.id)
        assert (caught.value.status_code, caught.value.code) == (413, "conversation_too_large")
        assert answer.output_text == "b"


async def test_references_count_with_the_size_of_their_items():
    async with gateway_in_memory({"W": agent("y" * 1000, "b", "c")}, config=limits(max_conversation=3500)) as g:
        first = await g.openai.responses.create(model="W", input="hi")
        reference = {"type": "item_reference", "id": first.output[0].id}
        for count, fits in ((2, True), (4, False)):
            given = [*[reference] * count, {"role": "user", "content": "hi"}]
            if fits:
                second = await g.openai.responses.create(model="W", input=given)
            else:
                with pytest.raises(openai.APIStatusError, match="max_conversation"):
                    await g.openai.responses.create(model="W", input=given)
        given = [reference, reference, {"role": "user", "content": "hi"}]
        with pytest.raises(openai.APIStatusError, match="max_conversation"):
            await g.openai.responses.create(model="W", input=given, previous_response_id=second.id)


async def test_items_are_stored_once():
    async with gateway_in_memory({"W": agent(*"abcdefgh")}, config={"plugins": NO_SESSIONS}) as g:
        previous, sizes, references = None, [], []
        for _ in range(4):
            before = stored_bytes(g)
            answer = await g.openai.responses.create(model="W", input="x" * 10_000, previous_response_id=previous)
            previous = answer.id
            sizes.append(stored_bytes(g) - before)
        assert max(sizes) < min(sizes) + 200
        assert max(sizes) < 20_000
        for _ in range(3):  # the AI SDK refers to all earlier items
            before = stored_bytes(g)
            given = [{"role": "user", "content": "x" * 10_000}]
            answer = await g.openai.responses.create(model="W", input=[*references, *given])
            references += [{"type": "item_reference", "id": item.id} for item in answer.output]
            assert stored_bytes(g) - before < 20_000
        listed = await g.openai.responses.input_items.list(answer.id)
        assert [item.role for item in listed.data] == ["user", "assistant", "assistant"]


async def test_a_deleted_response_is_not_a_part_of_a_conversation():
    async with gateway_in_memory({"W": agent("a", "b", "c")}, config={"plugins": NO_SESSIONS}) as g:
        first = await g.openai.responses.create(model="W", input="secret")
        second = await g.openai.responses.create(model="W", input="x", previous_response_id=first.id)
        await g.openai.responses.delete(first.id)
        assert "secret" not in str(g.gateway.records._records)
        with pytest.raises(openai.BadRequestError, match="an earlier response") as caught:
            await g.openai.responses.create(model="W", input="x", previous_response_id=second.id)
        assert caught.value.code == "previous_response_not_found"
        assert (await g.openai.responses.retrieve(second.id)).output_text == "b"


async def test_a_conversation_is_kept_while_it_is_continued():
    async with gateway_in_memory({"W": agent(*"abc")}, config=limits(keep_responses=100)) as g:
        clock = [0.0]
        g.gateway.records._clock = lambda: clock[0]
        first = await g.openai.responses.create(model="W", input="1")
        clock[0] += 80
        second = await g.openai.responses.create(model="W", input="2", previous_response_id=first.id)
        clock[0] += 80
        third = await g.openai.responses.create(model="W", input="3", previous_response_id=second.id)
        assert third.output_text == "c"


async def test_a_response_that_an_earlier_version_stored_can_be_continued():
    model = script("b")
    async with gateway_in_memory({"W": Agent(name="w", model=model)}, config={"plugins": NO_SESSIONS}) as g:
        item = {"id": "msg_1", "type": "message", "role": "user", "content": "one"}
        record = {
            "response": {"id": "resp_old", "status": "completed", "output": []},
            "input": [item],
            "conversation": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "a"}],
        }
        await g.gateway.records.put("response", "resp_old", "local", orjson.dumps(record), seconds=None)
        await g.openai.responses.create(model="W", input="two", previous_response_id="resp_old")
        assert [each["content"] for each in model.calls[-1].input] == ["one", "a", "two"]
        assert (await g.http.get("/v1/responses/resp_old")).json()["id"] == "resp_old"
        assert (await g.http.get("/v1/responses/resp_old/input_items")).json()["data"] == [
            {**item, "content": [{"type": "input_text", "text": "one"}], "status": "completed"}
        ]


@pytest.mark.parametrize("plugin", [Failing, Broken])
async def test_an_answer_that_cannot_be_stored_is_sent_and_marked(plugin):
    config = {"plugins": NO_SESSIONS}
    async with gateway_in_memory({"W": agent("a", "b")}, config=config, plugins={"failing": plugin}) as g:
        whole = await g.http.post("/v1/responses", json={"model": "W", "input": "x"})
        assert whole.status_code == 200
        assert whole.headers["x-agent-gateway-stored"] == "false"
        assert whole.json()["store"] is False
        assert whole.json()["output"][0]["content"][0]["text"] == "a"
        streamed = await g.http.post("/v1/responses", json={"model": "W", "input": "x", "stream": True})
        last = json.loads(streamed.text.rstrip().rpartition("data: ")[2])
        assert (last["type"], last["response"]["store"]) == ("response.completed", False)


async def test_a_background_response_that_cannot_be_stored_can_be_fetched():
    config = {"plugins": NO_SESSIONS, "runs": {"keep_results": 0.2}}
    async with gateway_in_memory({"W": agent("a")}, config=config, plugins={"failing": Failing}) as g:
        response = await g.openai.responses.create(model="W", input="x", background=True)
        while response.status == "in_progress":
            await asyncio.sleep(0.01)
            response = await g.openai.responses.retrieve(response.id)
        assert (response.output_text, response.store) == ("a", False)
