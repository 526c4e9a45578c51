"""Background requests of chat UIs do not run the agent; user messages do."""

import json

import openai
import pytest
from agents import Agent, InputGuardrail

from gateway_core.testing import gateway_in_memory, script
from tests.support.ui_requests import LIBRECHAT_TITLE, OPENWEBUI
from tests.support.upstream import Answer, FakeUpstream, error_reply, words


@pytest.fixture
def agent():
    def never(*_):
        raise AssertionError("the agent's guardrail ran")

    return Agent(name="never", instructions="SECRET INSTRUCTIONS", input_guardrails=[InputGuardrail(never)])


async def test_without_a_model_the_answer_is_local(agent):
    async with gateway_in_memory({"A": agent}, config={"plugins": {"offline_model": {"word_delay": 0}}}) as g:
        for kind, body in OPENWEBUI.items():
            answer = (await g.openai.chat.completions.create(model="A", **body)).choices[0]
            assert answer.finish_reason == "stop"
            assert isinstance(json.loads(answer.message.content), dict), kind
        assert [run.task for run, _ in g.ended] == list(OPENWEBUI)
        assert all(outcome.error is None and not outcome.usage.requests for _, outcome in g.ended)


async def test_responses_requests_are_detected_too(agent):
    async with gateway_in_memory({"A": agent}, config={"plugins": {"ui_tasks": {"local": True}}}) as g:
        for kind, body in OPENWEBUI.items():
            [message] = body["messages"]
            part = {"type": "input_text", "text": message["content"]}
            # The format that Open WebUI sends on a connection of the type Responses.
            item = {"type": "message", "role": "user", "content": [part]}
            response = await g.openai.responses.create(model="A", input=[item])
            assert isinstance(json.loads(response.output_text), dict), kind
            with pytest.raises(openai.NotFoundError):
                await g.openai.responses.retrieve(response.id)
        assert [run.task for run, _ in g.ended] == list(OPENWEBUI)


async def test_the_default_upstreams_model_answers_without_the_agent(agent):
    with FakeUpstream(lambda request: Answer(words('{"title": "From the model"}'))) as upstream:
        plugins = {"upstreams": {"probe": False, "fake": {"base_url": upstream.base_url, "default_model": "small"}}}
        async with gateway_in_memory({"A": agent}, config={"plugins": plugins}) as g:
            answer = await g.openai.chat.completions.create(model="A", **OPENWEBUI["title"])
            assert json.loads(answer.choices[0].message.content) == {"title": "From the model"}
            stream = await g.openai.chat.completions.create(
                model="A", messages=[{"role": "user", "content": LIBRECHAT_TITLE}], stream=True
            )
            text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            assert text == '{"title": "From the model"}'
        asked = [record.body for record in upstream.records if "messages" in (record.body or {})]
        assert [request["model"] for request in asked] == ["small", "small"]
        assert all("SECRET" not in json.dumps(request) and not request.get("tools") for request in asked)


async def test_a_configured_model_answers_with_a_local_fallback(agent):
    with FakeUpstream(lambda request: error_reply(500)) as upstream:
        plugins = {
            "upstreams": {
                "probe": False,
                "fake": {"base_url": upstream.base_url, "default_model": "big", "max_retries": 0},
            },
            "ui_tasks": {"model": "fake/tiny"},
        }
        async with gateway_in_memory({"A": agent}, config={"plugins": plugins}) as g:
            answer = await g.openai.chat.completions.create(model="A", **OPENWEBUI["title"])
            assert json.loads(answer.choices[0].message.content)["title"] == "What is the weather in Paris"
        assert {record.body["model"] for record in upstream.records if "messages" in (record.body or {})} == {"tiny"}


async def test_a_header_identifies_a_task_and_an_agent_can_opt_out():
    answers = Agent(name="a", model=script("from the agent", "again", "and again"))
    body = {"model": "A", "messages": [{"role": "user", "content": "anything"}]}
    named = {"x-openwebui-task": "title_generation"}
    async with gateway_in_memory({"A": answers}, config={"plugins": {"ui_tasks": {"local": True}}}) as g:
        answer = await g.openai.chat.completions.create(**body, extra_headers=named)
        assert "title" in json.loads(answer.choices[0].message.content)
        answer = await g.openai.chat.completions.create(**body, extra_headers={"x-openwebui-task": ""})
        assert answer.choices[0].message.content == "from the agent"
    async with gateway_in_memory({"A": answers}, config={"agents": {"a": {"background_tasks": False}}}) as g:
        answer = await g.openai.chat.completions.create(**body, extra_headers=named)
        assert answer.choices[0].message.content == "again"
    async with gateway_in_memory({"A": answers}, config={"plugins": {"ui_tasks": {"enabled": False}}}) as g:
        answer = await g.openai.chat.completions.create(**body, extra_headers=named)
        assert answer.choices[0].message.content == "and again"
