"""Requests with an Idempotency-Key: one run for all repetitions, and the same response for each."""

import asyncio

import openai
import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel

from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BODY = {"model": "W", "input": "hi", "messages": [{"role": "user", "content": "hi"}]}


class Shop:
    """An agent whose tool counts its calls, and waits for `release`."""

    def __init__(self, *turns: str) -> None:
        self.charges = 0
        self.started, self.release = asyncio.Event(), asyncio.Event()

        @function_tool(failure_error_function=None)
        async def charge() -> str:
            """Charge a card."""
            self.charges += 1
            self.started.set()
            await self.release.wait()
            return "charged"

        self.model: ScriptedModel = script(*turns) if turns else script(call("charge"), "done", call("charge"), "twice")
        self.agent = Agent(name="w", tools=[charge], model=self.model)


def post(g, path: str, key: str | None = "k", who: str | None = None, **body):
    headers = ({"idempotency-key": key} if key else {}) | ({"x-who": who} if who else {})
    return g.http.post(path, json={**BODY, **body}, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_repetitions_get_the_first_response(path, stream):
    shop = Shop()
    async with gateway_in_memory({"W": shop.agent}) as g:
        first = asyncio.create_task(post(g, path, stream=stream))
        await shop.started.wait()
        second = asyncio.create_task(post(g, path, stream=stream))
        await asyncio.sleep(0.05)
        shop.release.set()
        third = await post(g, path, stream=stream)
        texts = [(await answer).text for answer in (first, second)]
        texts.append((await post(g, path, stream=stream)).text)
        assert texts == [third.text] * 3
        assert "done" in third.text
        assert "idempotent-replayed" not in first.result().headers
        assert second.result().headers["idempotent-replayed"] == "true"
        assert third.headers["content-type"] == first.result().headers["content-type"]
        assert third.headers["x-request-id"] != first.result().headers["x-request-id"]
        assert shop.charges == 1
        assert len(g.ended) == 1


async def test_the_same_key_with_another_body_is_rejected():
    async with gateway_in_memory({"W": Shop("a", "b").agent}) as g:
        await post(g, CHAT)
        other = await post(g, CHAT, temperature=1)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert (await post(g, CHAT, key="x" * 256)).status_code == 400
        assert (await post(g, CHAT, key="other")).json()["choices"][0]["message"]["content"] == "b"


async def test_keys_belong_to_a_principal_and_a_path():
    class People:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-who"])

    async with gateway_in_memory({"W": Shop("a", "b", "c").agent}, plugins={"people": People}) as g:
        asked = ((CHAT, "ada"), (CHAT, "bob"), (RESPONSES, "ada"))
        texts = [(await post(g, path, who=who)).text for path, who in asked]
        assert [word in text for word, text in zip(('"a"', '"b"', '"c"'), texts, strict=True)] == [True] * 3


async def test_without_a_key_or_a_time_every_request_runs():
    async with gateway_in_memory({"W": Shop("a", "b").agent}) as g:
        assert (await post(g, CHAT, key=None)).text != (await post(g, CHAT, key=None)).text
    async with gateway_in_memory({"W": Shop("a", "b").agent}, config={"http": {"idempotency": 0}}) as g:
        assert (await post(g, CHAT)).text != (await post(g, CHAT)).text


async def test_a_response_expires():
    async with gateway_in_memory({"W": Shop("a", "b").agent}, config={"http": {"idempotency": 0.05}}) as g:
        first = await post(g, CHAT)
        await asyncio.sleep(0.1)
        assert (await post(g, CHAT)).text != first.text


async def test_a_failure_is_repeated_if_a_tool_has_started():
    shop = Shop()
    shop.model = shop.agent.model = script(call("charge"))  # the next model call fails
    shop.release.set()
    async with gateway_in_memory({"W": shop.agent}) as g:
        first, second = await post(g, CHAT), await post(g, CHAT)
        assert (first.status_code, second.status_code) == (424, 424)
        assert second.headers["x-should-retry"] == "false"
        assert shop.charges == 1


async def test_a_failure_before_a_tool_has_started_is_not_kept():
    async with gateway_in_memory({"W": Shop("a").agent}) as g:
        g.gateway.engine.stopping = True
        assert (await post(g, CHAT)).status_code == 503
        g.gateway.engine.stopping = False
        assert (await post(g, CHAT)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_after_a_disconnect_gets_the_answer_of_a_run_that_has_acted(stream):
    shop = Shop()
    async with gateway_in_memory({"W": shop.agent}) as g:
        first = asyncio.create_task(post(g, CHAT, stream=stream))
        await shop.started.wait()
        first.cancel()
        await asyncio.sleep(0.05)
        second = asyncio.create_task(post(g, CHAT, stream=stream))
        await asyncio.sleep(0.05)
        shop.release.set()
        assert "done" in (await second).text
        assert shop.charges == 1


async def test_without_a_retry_a_disconnect_cancels_the_run(monkeypatch):
    monkeypatch.setattr("gateway_core.http.idempotency._RETRY_SECONDS", 0.05)
    shop = Shop()
    async with gateway_in_memory({"W": shop.agent}) as g:
        first = asyncio.create_task(post(g, CHAT))
        await shop.started.wait()
        first.cancel()
        while not g.ended:
            await asyncio.sleep(0.01)
        second = await post(g, CHAT)
        assert (second.status_code, second.json()["error"]["code"]) == (424, "idempotent_response_lost")
        assert second.headers["x-should-retry"] == "false"
        assert shop.charges == 1


async def test_the_size_is_limited():
    async with gateway_in_memory(
        {"W": Shop("a" * 3000, "b" * 3000, "c").agent}, config={"http": {"idempotency_size": 20_000}}
    ) as g:
        assert [(await post(g, CHAT, key=key)).status_code for key in "123"] == [200] * 3
        repeated = [await post(g, CHAT, key=key) for key in "123"]
        assert [answer.status_code for answer in repeated] == [424, 200, 200]
        assert repeated[0].json()["error"]["code"] == "idempotent_response_lost"
        assert len(g.ended) == 3


async def test_the_official_client_can_send_a_key():
    shop = Shop()
    shop.release.set()
    async with gateway_in_memory({"W": shop.agent}) as g:
        answers = [
            await g.openai.responses.create(model="W", input="hi", extra_headers={"Idempotency-Key": "k"})
            for _ in range(2)
        ]
        assert answers[0].id == answers[1].id
        with pytest.raises(openai.UnprocessableEntityError):
            await g.openai.responses.create(model="W", input="ho", extra_headers={"Idempotency-Key": "k"})
        assert shop.charges == 1
