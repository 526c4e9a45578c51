"""Stored chat completions: list, get, messages, update and delete, for the principal that made them."""

import openai
import pytest
from agents import Agent
from openai.types.chat import ChatCompletion

from gateway_core.errors import UnavailableError
from gateway_core.hooks.specs import hookimpl
from gateway_core.storage.memory_record_store import MemoryRecordStore
from gateway_core.testing import gateway_in_memory, script
from gateway_core.types import Principal
from tests.support.openai_types import check

NO_SESSIONS = {"plugins": {"sessions": {"enabled": False}}}
USER = [{"role": "user", "content": "hi"}]


def agent(*turns):
    return Agent(name="w", model=script(*turns))


class People:
    def __init__(self, *_):
        pass

    @hookimpl
    async def authenticate(self, request):
        return Principal(request.headers.get("x-who", "ada"))


@pytest.mark.parametrize("config", [{}, NO_SESSIONS], ids=["sessions", "memory"])
async def test_completions_are_stored_whole_and_streamed(config):
    async with gateway_in_memory({"W": agent(*"abcd"), "V": agent("v")}, config=config) as g:
        api = g.openai.chat.completions
        first = await api.create(model="W", messages=USER, store=True, metadata={"topic": "one"})
        stream = await api.create(model="W", messages=USER, store=True, stream=True, metadata={"topic": "two"})
        chunks = [chunk async for chunk in stream]
        await api.create(model="W", messages=USER)
        await api.create(model="W", messages=USER, store=False)
        other = await api.create(model="V", messages=USER, store=True)
        ids = [first.id, chunks[0].id, other.id]
        assert [each.id async for each in api.list()] == ids
        assert [each.id async for each in api.list(order="desc", limit=2)] == ids[::-1]
        assert [each.id async for each in api.list(limit=1, after=first.id)] == ids[1:]
        assert [each.id async for each in api.list(model="V")] == ids[2:]
        assert [each.id async for each in api.list(metadata={"topic": "two"})] == ids[1:2]
        got = await api.retrieve(ids[1])
        assert (got.choices[0].message.content, got.metadata) == ("b", {"topic": "two"})
        for each in ids:
            check(ChatCompletion, (await g.http.get(f"/v1/chat/completions/{each}")).json())


async def test_metadata_is_updated_and_a_completion_is_deleted():
    async with gateway_in_memory({"W": agent("a")}) as g:
        api = g.openai.chat.completions
        made = await api.create(model="W", messages=USER, store=True)
        assert (await api.update(made.id, metadata={"a": "b"})).metadata == {"a": "b"}
        assert (await api.retrieve(made.id)).metadata == {"a": "b"}
        for metadata in (None, {"a": 1}, "x"):
            answer = await g.http.post(f"/v1/chat/completions/{made.id}", json={"metadata": metadata})
            assert answer.status_code == 400
        assert (await api.delete(made.id)).deleted
        for asked in (api.retrieve(made.id), api.delete(made.id), api.update(made.id, metadata={})):
            with pytest.raises(openai.NotFoundError):
                await asked
        assert [each async for each in api.list()] == []


async def test_messages_of_the_request():
    parts = [{"type": "text", "text": "look"}]
    given = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": parts}]
    async with gateway_in_memory({"W": agent("a")}) as g:
        made = await g.openai.chat.completions.create(model="W", messages=given, store=True)
        listed = [each async for each in g.openai.chat.completions.messages.list(made.id, limit=1)]
        assert [(each.role, each.content) for each in listed] == [("system", "Be kind."), ("user", None)]
        assert [part.text for part in listed[1].content_parts] == ["look"]
        assert len({each.id for each in listed}) == 2


async def test_a_completion_is_private_to_its_principal():
    async with gateway_in_memory({"W": agent("a")}, plugins={"people": People}) as g:
        made = await g.openai.chat.completions.create(model="W", messages=USER, store=True)
        bob = g.openai.with_options(default_headers={"x-who": "bob"}).chat.completions
        for asked in (
            bob.retrieve(made.id),
            bob.delete(made.id),
            bob.update(made.id, metadata={}),
            bob.messages.list(made.id),
        ):
            with pytest.raises(openai.NotFoundError):
                await asked
        assert [each async for each in bob.list()] == []
        assert (await g.openai.chat.completions.retrieve(made.id)).id == made.id


async def test_a_completion_that_cannot_be_stored_is_sent_and_marked():
    class Full(MemoryRecordStore):
        async def put(self, *args, **kwargs):
            raise UnavailableError("full")

    class Failing:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return Full()

    async with gateway_in_memory({"W": agent("a", "b")}, plugins={"failing": Failing}, config=NO_SESSIONS) as g:
        body = {"model": "W", "messages": USER, "store": True}
        answer = await g.http.post("/v1/chat/completions", json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "a"
        assert answer.headers["x-agent-gateway-stored"] == "false"
        answer = await g.http.post("/v1/chat/completions", json={**body, "stream": True})
        assert answer.text.endswith("data: [DONE]\n\n")
