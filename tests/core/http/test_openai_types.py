"""Every object and event of the OpenAI-compatible routes is valid in the strictest reading of the official types."""

import asyncio
import itertools

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ToolOutputFileContent,
    ToolOutputImage,
    ToolOutputText,
    function_tool,
    input_guardrail,
)
from agents.testing import ScriptedModel, assistant_message
from openai.types import Model
from openai.types.responses import ResponseItem, ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Summary

from gateway_core.testing import call, gateway_in_memory, script
from tests.core.runs.test_sdk_tools import CALLS, HERE, model_server, served
from tests.support.openai_types import (
    check,
    check_chat,
    check_chat_stream,
    check_error,
    check_response,
    check_response_stream,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@function_tool
def look(name: str):
    """Look."""
    return [
        ToolOutputText(text="a chart"),
        ToolOutputImage(image_url=f"data:image/png;base64,{PNG}"),
        ToolOutputFileContent(file_url="https://example.org/a.pdf", filename="a.pdf"),
    ]


@function_tool(failure_error_function=None)
def fail() -> str:
    """Fail."""
    raise ValueError


@function_tool(needs_approval=True)
def delete(name: str) -> str:
    """Delete."""
    return "deleted"


@input_guardrail
def never(ctx, agent, given) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


def thinking():
    thought = ResponseReasoningItem(id="r", type="reasoning", summary=[Summary(text="Hm.", type="summary_text")])
    return ScriptedModel([[thought, assistant_message("It is mild.")]])


def handing_off():
    other = Agent(name="other", model=script("I am other."))
    return Agent(name="w", handoffs=[other], model=script(call("transfer_to_other")))


SHAPES = {
    "text": lambda: Agent(name="w", model=script("hi")),
    "nothing": lambda: Agent(name="w", model=script("")),
    "reasoning": lambda: Agent(name="w", model=thinking()),
    "tools": lambda: Agent(name="w", tools=[look], model=script(["So.", call("look", name="x")], "Done.")),
    "two calls": lambda: Agent(name="w", tools=[look], model=script([call("look", name="x")] * 2, "Done.")),
    "handoff": handing_off,
    "approval": lambda: Agent(name="w", tools=[delete], model=script(["So.", call("delete", name="x")])),
    "refused": lambda: Agent(name="w", input_guardrails=[never], model=script("no")),
    "failed": lambda: Agent(name="w", model=ScriptedModel([])),
    "failed tool": lambda: Agent(name="w", tools=[fail], model=script(["So.", call("fail")])),
}
CLIENTS = {
    "program": {},
    "Open WebUI": {"x-agent-gateway-client": "openwebui"},
    "LibreChat": {"x-agent-gateway-client": "librechat"},
    "plain": {"x-agent-gateway-client": "plain"},
}
REQUEST = {
    "max_output_tokens": 100,
    "metadata": {"a": "b"},
    "instructions": "Be brief.",
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 1,
    "presence_penalty": 0.5,
    "reasoning": {"effort": "low"},
    "text": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "verbosity": "low"},
    "max_tool_calls": 3,
    "safety_identifier": "s",
    "prompt_cache_key": "p",
    "user": "u",
    "tools": [],
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_answers_of_agents(shape, client):
    for stream, path in itertools.product((False, True), ("chat/completions", "responses")):
        async with gateway_in_memory({"W": SHAPES[shape]()}) as g:
            given = {"input": "go"} if path == "responses" else {"messages": [{"role": "user", "content": "go"}]}
            body = {"model": "W", "stream": stream, **given}
            answer = await g.http.post(f"/v1/{path}", json=body, headers=CLIENTS[client])
            if answer.status_code != 200:
                check_error(answer.json())
            elif path == "responses":
                check_response_stream(answer.text) if stream else check_response(answer.json())
            else:
                check_chat_stream(answer.text) if stream else check_chat(answer.json())
    async with gateway_in_memory({"W": SHAPES[shape]()}) as g:
        started = await g.http.post("/v1/responses", json={"model": "W", "input": "go", "background": True})
        response_id = check_response(started.json()).id
        while check_response((await g.http.get(f"/v1/responses/{response_id}")).json()).status == "in_progress":
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("name", [*CALLS, *HERE])
@pytest.mark.parametrize("client", ["program", "Open WebUI"])
async def test_answers_with_tools_of_the_model(name, client):
    tools, *items = {**CALLS, **HERE}[name]
    for stream, path in itertools.product((False, True), ("chat/completions", "responses")):
        with model_server(*items) as upstream:
            async with served(upstream, Agent(name="x", tools=tools)) as g:
                given = {"input": "go"} if path == "responses" else {"messages": [{"role": "user", "content": "go"}]}
                body = {"model": "X", "stream": stream, **given}
                answer = await g.http.post(f"/v1/{path}", json=body, headers=CLIENTS[client])
                assert answer.status_code == 200, answer.text
                if path == "responses":
                    check_response_stream(answer.text) if stream else check_response(answer.json())
                else:
                    check_chat_stream(answer.text) if stream else check_chat(answer.json())


async def test_a_cancelled_response():
    started = asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await asyncio.Event().wait()
        return ""

    async with gateway_in_memory({"W": Agent(name="w", tools=[wait], model=script(["On it.", call("wait")]))}) as g:
        body = {"model": "W", "input": "go", "background": True}
        response_id = (await g.http.post("/v1/responses", json=body)).json()["id"]
        await started.wait()
        for method, path in (("GET", response_id), ("POST", f"{response_id}/cancel"), ("GET", response_id)):
            check_response((await g.http.request(method, f"/v1/responses/{path}")).json())


async def test_a_response_repeats_the_fields_of_its_request():
    async with gateway_in_memory({"W": Agent(name="w", model=script("{}", "hi"))}) as g:
        response = (await g.http.post("/v1/responses", json={"model": "W", "input": "go", **REQUEST})).json()
        check_response(response)
        assert (response["frequency_penalty"], response["presence_penalty"]) == (1, 0.5)
        assert (response["safety_identifier"], response["prompt_cache_key"]) == ("s", "p")
        assert response["max_tool_calls"] is None
        response = (await g.http.post("/v1/responses", json={"model": "W", "input": "go"})).json()
        fields = ("frequency_penalty", "presence_penalty", "safety_identifier", "prompt_cache_key", "max_tool_calls")
        assert [response[name] for name in fields] == [0, 0, None, None, None]


GIVEN = [
    {"role": "system", "content": "Be kind."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "user", "content": "hi", "id": None, "type": None},
    {"role": "assistant", "content": "ho"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "ho"}, {"type": "refusal", "refusal": "no"}]},
    {"role": "assistant", "content": [{"type": "input_text", "text": "ho"}], "status": None},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "reasoning"},
    {"type": "function_call", "call_id": "c1", "name": "f"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "output_text", "text": "out"}]},
    {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "c2", "output": "out"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "and this?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        ],
    },
]


async def test_input_items():
    async with gateway_in_memory({"W": Agent(name="w", model=script("one", "two"))}) as g:
        first = await g.openai.responses.create(model="W", input="hi")
        given = [*GIVEN, {"type": "item_reference", "id": first.output[0].id}]
        second = await g.openai.responses.create(model="W", input=given)
        page = (await g.http.get(f"/v1/responses/{second.id}/input_items?limit=100&order=asc")).json()
        items = [check(ResponseItem, item) for item in page["data"]]
        assert len(items) == len(given)
        assert [item.type for item in items[:3]] == ["message"] * 3
        assert [part.text for item in items[:4] for part in item.content] == ["Be kind.", "Be brief.", "hi", "ho"]
        assert items[3].content[0].annotations == []
        assert items[-1].content[0].text == "one"
        listed = [item async for item in g.openai.responses.input_items.list(second.id, limit=2)]
        assert [item.id for item in reversed(listed)] == [item["id"] for item in page["data"]]


async def test_models_and_errors():
    async with gateway_in_memory({"W": Agent(name="w", model=script("one"))}) as g:
        listed = (await g.http.get("/v1/models")).json()
        assert set(listed) == {"object", "data"}
        for each in (*listed["data"], (await g.http.get("/v1/models/W")).json()):
            check(Model, each)
        for method, path, body in (
            ("GET", "/v1/models/none", None),
            ("GET", "/v1/nothing", None),
            ("PUT", "/v1/models", None),
            ("POST", "/v1/chat/completions", {"model": "W"}),
            ("POST", "/v1/responses", {"model": "none", "input": "hi"}),
            ("GET", "/v1/responses/resp_1", None),
        ):
            answer = await g.http.request(method, path, json=body)
            assert 400 <= answer.status_code < 500
            check_error(answer.json())
