"""The output format of a client, over real HTTP to a model server."""

import json
import time

import openai
import pytest
from agents import Agent, Runner, ToolOutputImage, function_tool
from pydantic import BaseModel

from gateway_core.errors import ModelBehaviorError
from gateway_core.runs.answer_format import check
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import AnswerFormat
from tests.support.upstream import Answer, Call, FakeUpstream, words

USER = [{"role": "user", "content": "hi"}]
BOTH = pytest.mark.parametrize("stream", [False, True])


class City(BaseModel):
    name: str
    people: int


PARIS = '{"name": "Paris", "people": 2}'


def upstream(answer):
    def handler(request):
        if "transfer_to_geographer" in str(request.body.get("tools")):
            return Answer(calls=(Call("transfer_to_geographer"),))
        return Answer(words(answer))

    return FakeUpstream(handler)


def served(server, agent, api="chat"):
    return gateway_in_memory(
        {"X": agent}, config={"plugins": {"upstreams": {"up": {"base_url": server.base_url, "api": api}}}}
    )


def posts(server):
    return [record.body for record in server.records if record.request.method == "POST"]


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_the_official_client_parses_answers(api):
    agent = Agent(name="x", handoffs=[Agent(name="geographer")])
    with upstream(PARIS) as server:
        async with served(server, agent, api) as g:
            parsed = await g.openai.chat.completions.parse(model="X", messages=USER, response_format=City)
            assert parsed.choices[0].message.parsed == City(name="Paris", people=2)
            response = await g.openai.responses.parse(model="X", input="hi", text_format=City)
            assert response.output_parsed == City(name="Paris", people=2)
            assert response.text.format.type == "json_schema"
        last = posts(server)[-1]
    wanted = last["response_format"]["json_schema"] if api == "chat" else last["text"]["format"]
    assert wanted["schema"]["properties"]["people"] == {"title": "People", "type": "integer"}
    assert wanted["strict"] is True


FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}


async def ask(g, stream):
    answer = await g.openai.chat.completions.create(model="X", messages=USER, response_format=FORMAT, stream=stream)
    if stream:
        async for _ in answer:
            pass


@BOTH
@pytest.mark.parametrize(
    ("answer", "message"),
    [("Paris!", "it is not JSON"), ('{"name": "Paris", "people": "two"}', "$.people violates 'type'")],
)
async def test_an_answer_that_does_not_match_is_an_error(answer, message, stream):
    with upstream(answer) as server:
        async with served(server, Agent(name="x")) as g:
            with pytest.raises(openai.APIError) as caught:
                await ask(g, stream)
    assert message in caught.value.message
    assert caught.value.code == "answer_format"


async def test_an_agent_with_an_output_type_and_nested_agents_keep_theirs():
    inner = Agent(name="inner")
    agent = Agent(name="x", output_type=City)
    caller = Agent(name="c", tools=[inner.as_tool("ask", "Ask.")])

    def handler(request):
        if not request.body.get("tools"):
            return Answer(words(PARIS))
        return Answer(words(PARIS)) if request.tool_results else Answer(calls=(Call("ask", '{"input": "q"}'),))

    with FakeUpstream(handler) as server:
        async with served(server, agent) as g:
            other = {"type": "json_schema", "json_schema": {"name": "other", "schema": {"type": "string"}}}
            answer = await g.openai.chat.completions.create(model="X", messages=USER, response_format=other)
            assert json.loads(answer.choices[0].message.content) == json.loads(PARIS)
            assert posts(server)[0]["response_format"]["json_schema"]["schema"]["type"] == "object"
        server.reset()
        async with served(server, caller) as g:
            await g.openai.chat.completions.create(model="X", messages=USER, response_format=FORMAT)
        assert [("response_format" in body) for body in posts(server)] == [True, False, True]


async def test_the_answering_run_of_a_workflow_has_the_format():
    async def workflow(text: str) -> str:
        step = await Runner.run(Agent(name="step"), text)
        return (await Runner.run(Agent(name="last"), step.final_output)).final_output

    with upstream(PARIS) as server:
        async with served(server, workflow) as g:
            answer = await g.openai.chat.completions.create(
                model="X", messages=USER, response_format={"type": "json_object"}
            )
            assert json.loads(answer.choices[0].message.content) == json.loads(PARIS)
        assert [("response_format" in body) for body in posts(server)] == [False, True]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json", "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "no"}}}, "response_format.json_schema.schema"),
    ],
)
async def test_invalid_formats_are_rejected(given, param):
    async with gateway_in_memory({"X": Agent(name="x", model=script("{}"))}) as g:
        answer = await g.http.post(
            "/v1/chat/completions", json={"model": "X", "messages": USER, "response_format": given}
        )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_answer_in_json_contains_no_links():
    @function_tool
    def shot() -> ToolOutputImage:
        """Take a picture."""
        return ToolOutputImage(image_url="https://example.org/a.png")

    agent = Agent(name="x", tools=[shot], output_type=City, model=script(call("shot"), PARIS))
    async with gateway_in_memory({"X": agent}) as g:
        answer = await g.openai.chat.completions.create(model="X", messages=USER)
        assert json.loads(answer.choices[0].message.content) == json.loads(PARIS)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "#"},
        {
            "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)} | {"a60": {}},
            "$ref": "#/$defs/a0",
        },
    ],
)
def test_a_schema_cannot_reach_out_or_run_forever(schema):
    with pytest.raises(ModelBehaviorError, match="requested format"):
        check("1", AnswerFormat("x", schema, strict=False))


@pytest.mark.parametrize(
    ("items", "value"),
    [
        ({"enum": [f"x{n}" for n in range(20_000)]}, "y"),
        ({"anyOf": [{"const": n} for n in range(300)]}, "y"),
        ({"required": [f"a{n}" for n in range(20_000)]}, {}),
        ({"properties": {f"a{n}": {} for n in range(20_000)}}, {}),
        ({"anyOf": [{"items": {}, "const": 1}] * 1000}, [1] * 100),
    ],
)
def test_the_work_of_a_validation_is_limited(items, value):
    began = time.thread_time()
    with pytest.raises(ModelBehaviorError, match="takes too long to validate"):
        check(json.dumps([value] * 10_000), AnswerFormat("x", {"items": items}, strict=False))
    assert time.thread_time() - began < 8


def test_unique_items_take_linear_time():
    began = time.thread_time()
    values = [{"a": n} for n in range(20_000)]
    check(json.dumps(values), AnswerFormat("x", {"uniqueItems": True}, strict=False))
    with pytest.raises(ModelBehaviorError, match="uniqueItems"):
        check(json.dumps([*values, {"a": 1}]), AnswerFormat("x", {"uniqueItems": True}, strict=False))
    assert time.thread_time() - began < 4


def test_patterns_are_not_evaluated():
    check(json.dumps("a" * 60 + "!"), AnswerFormat("x", {"type": "string", "pattern": "^(a+)+$"}, strict=False))
