"""The Responses API: event format and order, stored and background responses, and approvals."""

import asyncio
import json

import openai
import pytest
from agents import Agent, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message
from openai.types.responses import (
    Response,
    ResponseFunctionWebSearch,
    ResponseReasoningItem,
    ResponseStreamEvent,
)
from openai.types.responses.response_reasoning_item import Summary
from pydantic import TypeAdapter

from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal

EVENT = TypeAdapter(ResponseStreamEvent)


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"18 C in {city}"


def thinking() -> ScriptedModel:
    thought = ResponseReasoningItem(
        id="r", type="reasoning", summary=[Summary(text="Let me think.", type="summary_text")]
    )
    return ScriptedModel([[thought, assistant_message("It is mild.")]])


def weather(*turns) -> Agent:
    turns = turns or (["Let me look.", call("get_weather", city="Paris")], "It is 18 C.")
    return Agent(name="weather", tools=[get_weather], model=script(*turns))


async def events_of(g, **body) -> list[dict]:
    """Returns the events of a stream, validated against the official types."""
    answer = await g.http.post("/v1/responses", json={"model": "W", "input": "weather?", "stream": True, **body})
    assert answer.status_code == 200, answer.text
    events = []
    for block in answer.text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if not lines:
            continue
        name, data = lines
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


async def test_a_whole_response():
    async with gateway_in_memory({"W": weather()}) as g:
        response = await g.openai.responses.create(model="W", input="weather?", instructions="Be brief.")
        Response.model_validate(response.model_dump(), strict=False)
        assert response.output_text == "Let me look.It is 18 C."
        assert [item.type for item in response.output] == [
            "message",
            "function_call",
            "function_call_output",
            "message",
        ]
        called, output = response.output[1:3]
        assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": "Paris"})
        assert called.call_id == output.call_id
        assert [part.text for part in output.output] == ["18 C in Paris"]
        assert (response.status, response.model, response.object) == ("completed", "W", "response")
        assert response.instructions == "Be brief."
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


async def test_a_stream_contains_the_same_items():
    async with gateway_in_memory({"W": weather()}) as g:
        events = await events_of(g)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        *("output_item.added", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        "completed",
    ]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert events[-1]["response"]["output"] == [event["item"] for event in done]
    ids = [event["item"]["id"] for event in done]
    assert len(set(ids)) == 4
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == ids[event["output_index"]]


async def test_the_official_stream_helper_works():
    async with gateway_in_memory({"W": weather()}) as g:
        async with g.openai.responses.stream(model="W", input="weather?") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert "response.completed" in kinds
        assert final.output_text.endswith("It is 18 C.")


async def test_reasoning_is_an_item_if_enabled():
    for setting, kinds in (("reasoning_content", ["reasoning", "message"]), ("none", ["message"])):
        agent = Agent(name="w", model=thinking())
        async with gateway_in_memory({"W": agent}, config={"clients": {"reasoning": setting}}) as g:
            events = await events_of(g)
            assert [item["type"] for item in events[-1]["response"]["output"]] == kinds


async def test_a_conversation_continues_from_a_stored_response():
    agent = weather(call("get_weather", city="Paris"), "18 C.", "You asked about Paris.")
    async with gateway_in_memory({"W": agent}) as g:
        first = await g.openai.responses.create(model="W", input="weather?")
        second = await g.openai.responses.create(model="W", input="what did I ask?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        seen = agent.model.calls[-1].input
        assert [item.get("type") or item["role"] for item in seen] == [
            "user",
            "function_call",
            "function_call_output",
            "assistant",
            "user",
        ]
        assert seen[2]["output"] == "18 C in Paris"
        fetched = await g.openai.responses.retrieve(first.id)
        assert fetched.output_text == "18 C."
        items = await g.openai.responses.input_items.list(second.id)
        assert [part.text for item in items.data for part in item.content] == ["what did I ask?"]
        await g.openai.responses.delete(first.id)
        for asked in (g.openai.responses.retrieve(first.id), g.openai.responses.delete(first.id)):
            with pytest.raises(openai.NotFoundError):
                await asked
        with pytest.raises(openai.BadRequestError) as caught:
            await g.openai.responses.create(model="W", input="again", previous_response_id=first.id)
        assert caught.value.code == "previous_response_not_found"


async def test_a_response_is_not_stored_with_store_false():
    async with gateway_in_memory({"W": weather("hi")}) as g:
        response = await g.openai.responses.create(model="W", input="hi", store=False)
        assert response.store is False
        with pytest.raises(openai.NotFoundError):
            await g.openai.responses.retrieve(response.id)


async def test_a_response_is_private_to_its_principal():
    class People:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-who"])

    async with gateway_in_memory({"W": weather("hi", "ho")}, plugins={"people": People}) as g:
        ada, bob = {"x-who": "ada"}, {"x-who": "bob"}
        mine = await g.openai.responses.create(model="W", input="hi", extra_headers=ada)
        for refused in (
            g.openai.responses.retrieve(mine.id, extra_headers=bob),
            g.openai.responses.delete(mine.id, extra_headers=bob),
            g.openai.responses.cancel(mine.id, extra_headers=bob),
            g.openai.responses.input_items.list(mine.id, extra_headers=bob),
        ):
            with pytest.raises(openai.NotFoundError):
                await refused
        with pytest.raises(openai.BadRequestError):
            await g.openai.responses.create(model="W", input="x", previous_response_id=mine.id, extra_headers=bob)
        assert (await g.openai.responses.retrieve(mine.id, extra_headers=ada)).id == mine.id


async def test_a_response_in_progress_can_be_cancelled():
    started = asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await asyncio.Event().wait()
        return ""

    agent = Agent(name="w", tools=[wait], model=script(["On it.", call("wait")]))
    async with gateway_in_memory({"W": agent}) as g:
        stream = await g.openai.responses.create(model="W", input="go", stream=True)
        kinds = []
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.created":
                created = event.response
            if event.type == "response.function_call_arguments.done":
                await started.wait()
                cancelled = await g.openai.responses.cancel(created.id)
                assert (cancelled.status, cancelled.output_text, cancelled.model) == ("cancelled", "On it.", "W")
        assert kinds[-1] == "response.failed"
        with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
            await g.openai.responses.cancel(created.id)


async def test_failures_before_and_within_a_stream():
    @function_tool(failure_error_function=None)
    def fail() -> str:
        """Fail."""
        raise ValueError("canary")

    async with gateway_in_memory({"W": Agent(name="w", model=ScriptedModel([]))}) as g:
        answer = await g.http.post("/v1/responses", json={"model": "W", "input": "x", "stream": True})
        assert answer.status_code == 500
    agent = Agent(name="w", tools=[fail], model=script(["First.", call("fail")]))
    async with gateway_in_memory({"W": agent}) as g:
        events = await events_of(g)
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "server_error"
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "First."
        assert "canary" not in str(events)


async def test_a_refusal_is_incomplete():
    async def workflow(text: str) -> str:
        return (await Runner.run(Agent(name="x", model=script("fine")), text)).final_output

    from agents import GuardrailFunctionOutput, input_guardrail

    @input_guardrail
    def never(ctx, agent, given) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent = Agent(name="w", input_guardrails=[never], model=script("no"))
    async with gateway_in_memory({"W": agent, "F": workflow}) as g:
        events = await events_of(g)
        assert events[-1]["type"] == "response.incomplete"
        assert events[-1]["response"]["incomplete_details"] == {"reason": "content_filter"}
        assert (await g.openai.responses.create(model="F", input="x")).output_text == "fine"


async def test_every_call_has_an_output():
    hosted = ResponseFunctionWebSearch(
        id="ws", type="web_search_call", status="completed", action={"type": "search", "query": "x"}
    )
    searching = Agent(
        name="w", model=ScriptedModel([[hosted, assistant_message("Found.")], [assistant_message("No.")]])
    )

    @function_tool(failure_error_function=None)
    def fail() -> str:
        """Fail."""
        raise ValueError("canary")

    failing = Agent(name="f", tools=[fail], model=script(call("fail")))
    async with gateway_in_memory({"W": searching, "F": failing}) as g:
        whole = await g.openai.responses.create(model="W", input="?")
        assert [item.type for item in whole.output] == ["web_search_call", "message"]
        await g.openai.responses.create(model="W", input="and?", previous_response_id=whole.id)
        # A call that the model's server made is not part of the conversation.
        assert [item["role"] for item in searching.model.calls[-1].input] == ["user", "assistant", "user"]
        events = await events_of(g, model="F")
        assert events[-1]["type"] == "response.failed"
        assert "(request id: req_" in events[-1]["response"]["error"]["message"]
        items = [(item["type"], item["status"]) for item in events[-1]["response"]["output"]]
        assert items == [("function_call", "incomplete"), ("function_call_output", "incomplete")]
        done = [(event["output_index"], event["item"]) for event in events if event["type"].endswith("item.done")]
        assert done == [*enumerate(events[-1]["response"]["output"])]


TOOL = {"type": "function", "name": "mine", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("headers", "tools", "shown"),
    [
        ({}, [], True),
        ({}, [TOOL], False),
        ({}, [{**TOOL, "name": "ask_user"}, {**TOOL, "name": "view_chat"}], True),
        ({"x-openwebui-user-id": "1"}, [TOOL], True),
        ({"x-agent-gateway-client": "openwebui"}, [TOOL], True),
        ({"x-agent-gateway-client": "plain"}, [], False),
        ({"user-agent": "ai/6.0 ai-sdk/provider-utils/4.0"}, [], False),
    ],
)
async def test_tool_items_depend_on_the_client(headers, tools, shown):
    async with gateway_in_memory({"W": weather()}) as g:
        client = g.openai.with_options(default_headers=headers)
        response = await client.responses.create(model="W", input="weather?", tools=tools)
        assert [item.type for item in response.output] == (
            ["message", "function_call", "function_call_output", "message"] if shown else ["message"]
        )


async def test_a_plain_client_gets_no_tool_items():
    headers = {"x-agent-gateway-client": "plain"}

    @function_tool(needs_approval=True)
    def delete() -> str:
        """Delete."""
        return "deleted"

    agent = weather(["Let me look.", call("get_weather", city="Paris")], "It is 18 C.", "You asked.")
    asking = Agent(name="a", tools=[delete], model=script(call("delete"), "Done."))
    async with gateway_in_memory({"W": agent, "A": asking}) as g:
        client = g.openai.with_options(default_headers=headers)
        response = await client.responses.create(model="W", input="weather?")
        assert [item.type for item in response.output] == ["message"]
        assert response.output_text == "Let me look.\n\nIt is 18 C."
        await client.responses.create(model="W", input="what did I ask?", previous_response_id=response.id)
        seen = [item.get("content") or item.get("output") or item["type"] for item in agent.model.calls[-1].input]
        said = ["Let me look.", "function_call", "18 C in Paris", "It is 18 C."]
        assert seen == ["weather?", *said, "what did I ask?"]
        asked = await client.responses.create(model="A", input="delete")
        assert [item.type for item in asked.output] == ["message"]
        done = await client.responses.create(model="A", input="approve", previous_response_id=asked.id)
        assert done.output_text == "Done."


@pytest.fixture
def waiting():
    """An agent whose tool blocks, with the events for its start and its release."""
    started, release = asyncio.Event(), asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait."""
        started.set()
        await release.wait()
        return "waited"

    return Agent(name="w", tools=[wait], model=script(call("wait"), "Done.", "And more.")), started, release


async def ended(g, response_id):
    async with asyncio.timeout(10):
        while (response := await g.openai.responses.retrieve(response_id)).status == "in_progress":
            await asyncio.sleep(0.005)
    return response


async def test_a_background_response_completes(waiting):
    agent, started, release = waiting
    async with gateway_in_memory({"W": agent}) as g:
        asked = await g.openai.responses.create(model="W", input="go", background=True)
        assert (asked.status, asked.background, asked.output) == ("in_progress", True, [])
        await started.wait()
        assert (await g.openai.responses.retrieve(asked.id)).status == "in_progress"
        with pytest.raises(openai.BadRequestError, match="cancel it first"):
            await g.openai.responses.delete(asked.id)
        release.set()
        made = await ended(g, asked.id)
        assert (made.status, made.output_text, made.background) == ("completed", "Done.", True)
        more = await g.openai.responses.create(model="W", input="more", previous_response_id=made.id)
        assert more.output_text == "And more."
        await g.openai.responses.delete(made.id)


async def test_a_background_response_can_be_cancelled_and_can_fail(waiting):
    agent, started, _ = waiting
    failing = Agent(name="f", model=ScriptedModel([]))
    async with gateway_in_memory({"W": agent, "F": failing}) as g:
        asked = await g.openai.responses.create(model="W", input="go", background=True)
        await started.wait()
        assert (await g.openai.responses.cancel(asked.id)).status == "cancelled"
        made = await ended(g, asked.id)
        assert (made.status, made.error) == ("cancelled", None)
        asked = await g.openai.responses.create(model="F", input="go", background=True)
        made = await ended(g, asked.id)
        assert (made.status, made.error.code) == ("failed", "server_error")
        assert "(request id: req_" in made.error.message


async def test_shutdown_ends_background_responses(waiting):
    agent, started, _ = waiting
    kept = {}

    class Keeping:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return self

        async def get(self, kind, key, owner):
            return kept.get((kind, key))

        async def put(self, kind, key, owner, value, *, seconds):
            kept[kind, key] = value

    config = {"plugins": {"sessions": {"enabled": False}}}
    async with gateway_in_memory({"W": agent}, plugins={"keeping": Keeping}, config=config) as g:
        asked = await g.openai.responses.create(model="W", input="go", background=True)
        await started.wait()
        assert not kept
    made = json.loads(kept["response", asked.id])["response"]
    assert made["status"] == "failed"
    assert "shutting down" in made["error"]["message"]


async def test_a_rejected_background_response_fails_immediately(waiting):
    agent, started, release = waiting
    async with gateway_in_memory({"W": agent}, config={"runs": {"max_runs": 1}}) as g:
        await g.openai.responses.create(model="W", input="go", background=True)
        await started.wait()
        client = g.openai.with_options(max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            await client.responses.create(model="W", input="go", background=True)
        assert caught.value.code == "too_many_runs"
        release.set()


async def test_items_of_earlier_responses_can_be_referenced():
    agent = weather(call("get_weather", city="Paris"), "18 C.", "You asked.")
    async with gateway_in_memory({"W": agent}) as g:
        first = await g.openai.responses.create(model="W", input="weather?")
        given = [{"type": "item_reference", "id": item.id} for item in first.output]
        given = [{"role": "user", "content": "weather?"}, *given, {"role": "user", "content": "what did I ask?"}]
        await g.openai.responses.create(model="W", input=given)
        assert [item.get("type") or item["role"] for item in agent.model.calls[-1].input] == [
            "user",
            "function_call",
            "function_call_output",
            "assistant",
            "user",
        ]
        await g.openai.responses.delete(first.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await g.openai.responses.create(model="W", input=given)
        assert caught.value.code == "item_not_found"


@pytest.mark.parametrize("form", ["item", "word"])
async def test_approvals_are_items_or_text(form):
    done = []

    @function_tool(needs_approval=True)
    def delete(name: str) -> str:
        """Delete."""
        done.append(name)
        return "deleted"

    agent = Agent(name="w", tools=[delete], model=script(call("delete", name="x"), "Done."))
    async with gateway_in_memory({"W": agent}) as g:
        asked = await g.openai.responses.create(model="W", input="delete x")
        # The output contains no function call, because a client would run it.
        assert [item.type for item in asked.output] == ["mcp_approval_request", "message"]
        request = asked.output[0]
        assert (request.name, json.loads(request.arguments)) == ("delete", {"name": "x"})
        answer = [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}]
        given = answer if form == "item" else "approve"
        response = await g.openai.responses.create(model="W", input=given, previous_response_id=asked.id)
        assert response.output_text == "Done."
        assert done == ["x"]


async def test_input_items_reach_the_model():
    agent = weather("ok")
    given = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "out"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "seen", "annotations": []}]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "and this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            ],
        },
    ]
    async with gateway_in_memory({"W": agent}) as g:
        await g.openai.responses.create(model="W", input=given, instructions="Be brief.")
    seen = agent.model.calls[-1]
    assert seen.system_instructions.endswith("Be brief.\n\nBe kind.")
    assert [item.get("type") or item["role"] for item in seen.input] == [
        "user",
        "function_call",
        "function_call_output",
        "assistant",
        "user",
    ]
    assert [part["type"] for part in seen.input[-1]["content"]] == ["input_text", "input_image", "input_file"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].id"),
        ({"input": ["x", {"type": "item_reference"}]}, "input[1].id"),
        ({"input": [{"role": "user", "content": None}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": 1, "output": "x"}]}, "input[0].call_id"),
        ({"background": 1}, "background"),
        ({"background": True, "store": False}, "store"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"reasoning": {"effort": "very hard"}}, "reasoning.effort"),
        ({"text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"stream": "yes"}, "stream"),
    ],
)
async def test_unsupported_fields_are_rejected_by_name(change, param):
    async with gateway_in_memory({"W": weather("never")}) as g:
        answer = await g.http.post("/v1/responses", json={"model": "W", "input": "hi", **change})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


async def test_unknown_agents_pages_and_limits():
    async with gateway_in_memory({"W": weather("a", "b")}) as g:
        with pytest.raises(openai.NotFoundError):
            await g.openai.responses.create(model="nope", input="x")
        stored = await g.openai.responses.create(model="W", input="x")
        assert (await g.http.get(f"/v1/responses/{stored.id}?stream=true")).status_code == 400
        assert (await g.http.get(f"/v1/responses/{stored.id}/input_items?limit=0")).status_code == 400
        assert (await g.http.get("/v1/responses/../etc")).status_code in (400, 404, 405)
