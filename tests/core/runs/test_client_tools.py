"""Client tools: the agent's model calls them, the client executes them, and its results resume the paused run."""

import json
from types import ModuleType

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelSettings,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
)
from agents.mcp import MCPServer
from agents.sandbox import SandboxAgent
from agents.testing import ScriptedModel, assistant_message, function_call
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool

from gateway_core.errors import GatewayError
from gateway_core.hooks.specs import hookimpl
from gateway_core.storage.memory_record_store import MemoryRecordStore
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Decision, Principal

OFFER = {"clients": {"client_tools": "offer"}}
OTHER_STORE = {"plugins": {"sessions": {"enabled": False}}}
ASK = {"role": "user", "content": "what is in the file?"}
HEADER = "x-agent-gateway-ignored-tools"


def tool(name="read_file", **more):
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "description": "Reads.", "parameters": parameters, **more}}


def flat(name="read_file"):
    return {"type": "function", **tool(name)["function"]}


async def workflow(text: str) -> str:
    return text


class Working:
    """An agent with a tool that records its calls."""

    def __init__(self, *turns, **more):
        self.ran: list[str] = []

        @function_tool
        def look_up(key: str) -> str:
            """Look a key up."""
            self.ran.append(key)
            return f"value of {key}"

        self.model = script(*turns)
        self.agent = Agent(name="working", tools=[look_up], **more)

    @property
    def last_input(self) -> str:
        return json.dumps(self.model.calls[-1].input)

    def tool_names(self, turn=-1) -> list[str]:
        return [each.name for each in self.model.calls[turn].tools]


async def chat(g, *messages, stream=False, tools=None, model="A", **more):
    """Send a chat request. Return the message and the finish reason; streamed deltas are put together."""
    more["tools"] = [tool()] if tools is None else tools
    given = await g.openai.chat.completions.create(model=model, messages=list(messages), stream=stream, **more)
    if not stream:
        choice = given.choices[0]
        return choice.message.model_dump(exclude_none=True), choice.finish_reason
    message, reason = {"role": "assistant", "content": ""}, None
    async for chunk in given:
        [choice] = chunk.choices
        message["content"] += choice.delta.content or ""
        for part in choice.delta.tool_calls or ():
            assert part.index == len(message.setdefault("tool_calls", [])), "each call has its own index"
            message["tool_calls"].append(
                {"id": part.id, "type": part.type, "function": part.function.model_dump(exclude_none=True)}
            )
        reason = choice.finish_reason or reason
    return message, reason


def results(message, *outputs):
    calls = message["tool_calls"]
    outputs = outputs or ["text"] * len(calls)
    return [
        {"role": "tool", "tool_call_id": each["id"], "content": output}
        for each, output in zip(calls, outputs, strict=True)
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_executes_the_call_and_the_run_resumes(stream):
    it = Working(
        call("look_up", key="a"), ["One moment.", call("read_file", path="/x"), call("read_file", path="/y")], "Done."
    )
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, reason = await chat(g, ASK, stream=stream)
        assert reason == "tool_calls"
        assert message["content"] == "One moment."
        calls = [each["function"] for each in message["tool_calls"]]
        assert [each["name"] for each in calls] == ["read_file", "read_file"]
        assert [json.loads(each["arguments"])["path"] for each in calls] == ["/x", "/y"]
        assert it.tool_names() == ["look_up", "read_file"]
        answer, reason = await chat(g, ASK, message, *results(message, "one", "two"), stream=stream)
        assert (answer["content"], reason) == ("Done.", "stop")
        assert it.ran == ["a"], "the agent's own tool is not called again"
        assert "value of a" in it.last_input, "the model keeps the results of the agent's own tools"
        outputs = [item["output"] for item in it.model.calls[-1].input if item.get("type") == "function_call_output"]
        assert outputs == ["value of a", "one", "two"]


@pytest.mark.parametrize("stream", [False, True])
async def test_own_and_client_calls_in_one_turn(stream):
    it = Working([call("look_up", key="a"), call("read_file", path="/x")], "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK, stream=stream)
        assert [each["function"]["name"] for each in message["tool_calls"]] == ["read_file"]
        assert it.ran == ["a"]
        assert (await chat(g, ASK, message, *results(message), stream=stream))[0]["content"] == "Done."
        assert it.ran == ["a"]


async def test_a_client_that_sends_no_text_gets_no_content():
    it = Working(call("read_file", path="/x"))
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        answer = await g.openai.chat.completions.create(model="A", messages=[ASK], tools=[tool()])
        assert answer.choices[0].message.content is None
        assert answer.choices[0].message.tool_calls[0].id.startswith("call_")


async def test_the_state_is_gone():
    records = MemoryRecordStore()

    class Store:
        def __init__(self, *_):
            pass

        @hookimpl
        def record_store(self):
            return records

    it = Working([call("look_up", key="a"), call("read_file", path="/x")], "Done.")
    config = {**OFFER, **OTHER_STORE}
    async with gateway_in_memory({"A": it.agent}, plugins={"store": Store}, model=it.model, config=config) as g:
        message, _ = await chat(g, ASK)
        records._records.clear()
        assert (await chat(g, ASK, message, *results(message, "the text")))[0]["content"] == "Done."
        assert "the text" in it.last_input
        assert it.ran == ["a"]


async def test_the_state_cannot_be_stored(caplog):
    class Full(MemoryRecordStore):
        async def put(self, *_, **__):
            raise GatewayError("the disk is full")

    class Store:
        def __init__(self, *_):
            self.records = Full()

        @hookimpl
        def record_store(self):
            return self.records

    it = Working(call("read_file", path="/x"), "Done.")
    config = {**OFFER, **OTHER_STORE}
    async with gateway_in_memory({"A": it.agent}, plugins={"store": Store}, model=it.model, config=config) as g:
        message, _ = await chat(g, ASK)
        assert "the disk is full" in caplog.text
        assert (await chat(g, ASK, message, *results(message, "the text")))[0]["content"] == "Done."
        assert "the text" in it.last_input


async def test_a_request_can_be_repeated():
    it = Working(call("read_file", path="/x"), "First.", "Second.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        for expected in ("First.", "Second."):
            assert (await chat(g, ASK, message, *results(message)))[0]["content"] == expected
        assert len(it.model.calls[-1].input) == 3


async def test_a_message_of_the_user_can_follow_the_results():
    it = Working([call("look_up", key="a"), call("read_file", path="/x")], "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        answer, _ = await chat(g, ASK, message, *results(message), {"role": "user", "content": "be brief"})
        assert answer["content"] == "Done."
        assert it.model.calls[-1].input[-1] == {"role": "user", "content": "be brief"}
        assert "value of a" in it.last_input


async def test_a_later_turn_does_not_resume_an_earlier_run():
    it = Working(call("read_file", path="/x"), "Done.", "Welcome.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        earlier = [ASK, message, *results(message)]
        done, _ = await chat(g, *earlier)
        answer, _ = await chat(g, *earlier, done, {"role": "user", "content": "thanks"})
        assert answer["content"] == "Welcome."
        assert len(it.model.calls[-1].input) == 5


async def test_many_rounds_are_not_limited_by_max_turns():
    rounds = 5
    it = Working(*[call("read_file", path=f"/{n}") for n in range(rounds)], "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config={**OFFER, "runs": {"max_turns": 2}}) as g:
        messages = [ASK]
        for _ in range(rounds):
            message, _ = await chat(g, *messages)
            messages += [message, *results(message)]
        assert (await chat(g, *messages))[0]["content"] == "Done."


async def test_a_call_that_the_later_request_does_not_offer():
    it = Working(call("read_file", path="/x"), "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        answer, _ = await chat(g, ASK, message, *results(message, "the text"), tools=[tool("other")])
        assert answer["content"] == "Done."
        assert "the text" in it.last_input
        assert it.tool_names() == ["look_up", "other"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_agents_own_tools_win(stream):
    @function_tool(is_enabled=False)
    def disabled() -> str:
        """Never offered."""
        return ""

    other = Agent(name="other")
    it = Working(call("look_up", key="a"), "Done.", handoffs=[other, handoff(Agent(name="x"), tool_name_override="go")])
    it.agent.tools.append(disabled)
    names = ("look_up", "disabled", "transfer_to_other", "go", "read_file")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        answer = await g.http.post(
            "/v1/chat/completions",
            json={"model": "A", "messages": [ASK], "tools": [tool(n) for n in names], "stream": stream},
        )
        assert answer.headers[HEADER] == "look_up, disabled, transfer_to_other, go"
        assert it.ran == ["a"]
        assert it.tool_names() == ["look_up", "read_file"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        ([tool("read_file")], "*"),
        ([tool("read_file"), tool("view_chat"), tool("ask_user")], None),
        ([], None),
    ],
)
async def test_by_default_they_are_ignored_and_a_header_says_so(stream, path, tools, expected):
    it = Working("Hello.")
    body = {"model": "A", "messages": [ASK], "input": "hi", "tools": tools, "stream": stream}
    async with gateway_in_memory({"A": it.agent}, model=it.model) as g:
        answer = await g.http.post(path, json=body)
        assert answer.status_code == 200
        assert answer.headers.get(HEADER) == expected
        assert it.tool_names() == ["look_up"]


async def test_tools_of_other_types_are_named():
    it = Working("Hello.")
    tools = [tool(), {"type": "web_search"}, {"type": "custom", "name": "apply_patch"}, {"type": "bad\r\nname: x"}]
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        answer = await g.http.post("/v1/chat/completions", json={"model": "A", "messages": [ASK], "tools": tools})
        assert answer.headers[HEADER] == "web_search, apply_patch"


async def test_an_approval_in_a_request_without_tools():
    @function_tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete a file."""
        return "deleted"

    it = Working([call("delete_file", path="/x"), call("read_file", path="/y")], "Done.")
    it.agent.tools.append(delete_file)
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        earlier = [ASK, message, *results(message, "the text")]
        asked, _ = await chat(g, *earlier, tools=[])
        answer, _ = await chat(g, *earlier, asked, {"role": "user", "content": "approve"}, tools=[])
        assert answer["content"] == "Done."
        outputs = [item["output"] for item in it.model.calls[-1].input if item.get("type") == "function_call_output"]
        assert sorted(outputs) == ["deleted", "the text"]


@pytest.mark.parametrize("stream", [False, True])
async def test_together_with_a_human_approval(stream):
    deleted = []

    @function_tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return "deleted"

    it = Working([call("delete_file", path="/x"), call("read_file", path="/y")], call("read_file", path="/z"), "Done.")
    it.agent.tools.append(delete_file)
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, reason = await chat(g, ASK, stream=stream)
        assert reason == "tool_calls"
        assert [each["function"]["name"] for each in message["tool_calls"]] == ["read_file"]
        earlier = [ASK, message, *results(message)]
        asked, reason = await chat(g, *earlier, stream=stream)
        assert reason == "stop"
        assert asked["content"].startswith("Approval needed")
        assert "read_file" not in asked["content"]
        assert deleted == []
        earlier += [asked, {"role": "user", "content": "approve"}]
        again, reason = await chat(g, *earlier, stream=stream)
        assert deleted == ["/x"]
        assert json.loads(again["tool_calls"][0]["function"]["arguments"]) == {"path": "/z"}
        earlier += [again, *results(again)]
        assert (await chat(g, *earlier, stream=stream))[0]["content"] == "Done."
        assert deleted == ["/x"]


async def test_another_principal_agent_or_chat_does_not_resume_the_run():
    class TwoPeople:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-who"])

    it = Working([call("look_up", key="secret"), call("read_file", path="/x")], *["Alone."] * 3, "Resumed.")
    agents = {"A": it.agent, "B": it.agent.clone()}
    async with gateway_in_memory(agents, plugins={"people": TwoPeople}, model=it.model, config=OFFER) as g:

        def at(who, chat):
            return {"extra_headers": {"x-who": who, "x-agent-gateway-session": chat}}

        message, _ = await chat(g, ASK, **at("ada", "1"))
        for who, session, model in (("bob", "1", "A"), ("ada", "2", "A"), ("ada", "1", "B")):
            answer, _ = await chat(g, ASK, message, *results(message), model=model, **at(who, session))
            assert answer["content"] == "Alone."
            assert "value of secret" not in it.last_input
        answer, _ = await chat(g, ASK, message, *results(message), **at("ada", "1"))
        assert answer["content"] == "Resumed."
        assert "value of secret" in it.last_input


async def test_policies_for_tools_do_not_concern_them():
    seen = []

    class Nothing:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authorize_tool(self, run, tool):
            seen.append(tool.name)
            return Decision(tool.name == "look_up", "test")

        @hookimpl
        def on_tool_end(self, call):
            seen.append(call.tool.name)

    it = Working([call("look_up", key="a"), call("read_file", path="/x")], "Done.")
    async with gateway_in_memory({"A": it.agent}, plugins={"no": Nothing}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        assert (await chat(g, ASK, message, *results(message)))[0]["content"] == "Done."
        assert set(seen) == {"look_up"}


@pytest.mark.parametrize(
    ("choice", "setting", "names"),
    [
        (None, None, ["look_up", "read_file", "other"]),
        ("auto", None, ["look_up", "read_file", "other"]),
        ("required", "required", ["look_up", "read_file", "other"]),
        ("none", None, ["look_up"]),
        ({"type": "function", "function": {"name": "other"}}, "other", ["look_up", "read_file", "other"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [tool("other")]}},
            "required",
            ["look_up", "other"],
        ),
    ],
)
async def test_the_choice_of_a_tool(choice, setting, names):
    it = Working("Hello.")
    more = {} if choice is None else {"tool_choice": choice}
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        await chat(g, ASK, tools=[tool(), tool("other")], parallel_tool_calls=False, **more)
        settings = it.model.calls[-1].model_settings
        assert settings.tool_choice == setting
        assert settings.parallel_tool_calls is (None if choice == "none" else False)
        assert it.tool_names() == names


async def test_the_choice_holds_until_a_client_tool_is_called():
    it = Working(call("look_up", key="a"), call("read_file", path="/x"), "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK, tool_choice="required")
        assert [each.model_settings.tool_choice for each in it.model.calls] == ["required"] * 2
        await chat(g, ASK, message, *results(message))
        assert it.model.calls[-1].model_settings.tool_choice is None


async def test_only_the_starting_agent_has_them():
    second = Agent(name="second")
    it = Working([call("transfer_to_second")], "Done.", handoffs=[second], model_settings=ModelSettings())
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        assert (await chat(g, ASK, tool_choice="required"))[0]["content"] == "Done."
        assert it.tool_names() == []
        assert it.model.calls[-1].model_settings.tool_choice is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"function": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": 1}]}, "tools[0].function"),
        ({"tools": [tool("with space")]}, "tools[0].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [{**flat("ä")}]}, "tools[0].name"),
        ({"tools": [tool(), tool()]}, "tools[1]"),
        ({"tools": [tool(parameters="x")]}, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "array"})]}, "tools[0].function.parameters"),
        ({"tools": [tool(strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [tool(description="x" * 300_000)]}, "tools"),
        ({"tools": [tool()], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 1}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        (
            {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "b"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [tool()], "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)
async def test_invalid_tools(fields, param):
    it = Working("Hello.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        answer = await g.http.post("/v1/chat/completions", json={"model": "A", "messages": [ASK], **fields})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stateless", [False, True])
async def test_responses(stream, stateless):
    it = Working(["One moment.", call("look_up", key="a"), call("read_file", path="/x")], "Done.", "Welcome.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:

        async def respond(**more):
            given = {"model": "A", "tools": [flat()], "store": not stateless, **more}
            if not stream:
                return await g.openai.responses.create(**given)
            async with g.openai.responses.stream(**given) as events:
                return await events.get_final_response()

        first = await respond(input="what is in the file?")
        assert first.status == "completed"
        assert [item.type for item in first.output] == ["message", "function_call"]
        asked = first.output[-1]
        assert (asked.name, json.loads(asked.arguments), asked.status) == ("read_file", {"path": "/x"}, "completed")
        output = {"type": "function_call_output", "call_id": asked.call_id, "output": "the text"}
        if stateless:
            echoed = [item.model_dump(exclude_none=True) for item in first.output]
            second = await respond(input=[{"role": "user", "content": "what?"}, *echoed, output])
        else:
            second = await respond(input=[output], previous_response_id=first.id)
        assert second.output_text == "Done."
        assert it.ran == ["a"]
        assert "the text" in it.last_input
        assert "value of a" in it.last_input
        if not stateless:
            third = await respond(input="thanks", previous_response_id=second.id)
            assert third.output_text == "Welcome."


@pytest.mark.parametrize("later", [[], [{"role": "user", "content": "never mind"}]])
async def test_a_call_without_a_result(later):
    it = Working([call("look_up", key="a"), call("read_file", path="/x"), call("read_file", path="/y")], "Done.")
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        first = await g.openai.responses.create(model="A", input="hi", tools=[flat()])
        output = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "the text"}
        given = {"model": "A", "input": [output, *later], "previous_response_id": first.id}
        assert (await g.openai.responses.create(**given)).output_text == "Done."
        assert "the text" in it.last_input
        assert "(no result)" in it.last_input
        assert it.ran == ["a"]


async def test_the_result_of_a_disconnected_run_contains_the_calls():
    it = Working(call("read_file", path="/x"))
    config = {**OFFER, "runs": {"on_disconnect": "detach"}}
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=config) as g:
        background = await g.openai.responses.create(model="A", input="hi", tools=[flat()], background=True)
        while background.status == "in_progress":
            background = await g.openai.responses.retrieve(background.id)
        assert background.output[-1].name == "read_file"


async def test_the_operator_overrides_the_author():
    module_agent = Working("Hello.", "Hello.")

    async def tools_with(config):
        async with gateway_in_memory({"A": module_agent.agent}, model=module_agent.model, config=config) as g:
            await chat(g, ASK)
            return module_agent.tool_names()

    assert await tools_with({**OFFER, "agents": {"a": {"client_tools": "ignore"}}}) == ["look_up"]
    assert await tools_with({"agents": {"a": {"client_tools": "offer"}}}) == ["look_up", "read_file"]


async def test_workflows_ignore_them():
    async with gateway_in_memory({"W": workflow}, config=OFFER) as g:
        answer = await g.http.post("/v1/chat/completions", json={"model": "W", "messages": [ASK], "tools": [tool()]})
        assert answer.headers[HEADER] == "*"
        assert answer.json()["choices"][0]["message"]["content"] == ASK["content"]


def module_of(agent, **settings) -> ModuleType:
    made = ModuleType("made")
    made.agent, made.__gateway__ = agent, settings  # type: ignore[attr-defined]
    return made


async def test_the_author_can_offer_them():
    it = Working("Hello.", "Hello.")
    module = module_of(it.agent, client_tools="offer")
    async with gateway_in_memory({"A": module}, model=it.model) as g:
        await chat(g, ASK)
        assert it.tool_names() == ["look_up", "read_file"]
    async with gateway_in_memory(
        {"A": module}, model=it.model, config={"agents": {"A": {"client_tools": "ignore"}}}
    ) as g:
        await chat(g, ASK)
        assert it.tool_names() == ["look_up"]


@pytest.mark.parametrize(
    ("exported", "setting", "message"),
    [
        ({"agent": Agent(name="a")}, "yes", 'unsupported value \'yes\' (supported values: "offer", "ignore")'),
        ({"run_workflow": workflow}, "offer", "not supported for workflows"),
    ],
)
async def test_an_invalid_setting_of_the_author(exported, setting, message):
    made = ModuleType("made")
    vars(made).update(exported, __gateway__={"client_tools": setting})
    async with gateway_in_memory({"A": made}) as g:
        broken = g.gateway.catalog.broken["A"]
        assert message in str(broken.error)


@pytest.mark.parametrize("gone", [False, True])
async def test_with_chat_memory(gone):
    it = Working([call("look_up", key="a"), call("read_file", path="/x")], "Done.", "Welcome.")
    module = module_of(it.agent, client_tools="offer", memory="session")
    records = MemoryRecordStore()

    class Store:
        def __init__(self, *_):
            pass

        @hookimpl(tryfirst=True)
        def record_store(self):
            return records

    async with gateway_in_memory({"A": module}, plugins={"store": Store}, model=it.model) as g:
        at = {"metadata": {"session_id": "1"}}
        message, _ = await chat(g, ASK, **at)
        if gone:
            records._records.clear()
        done, _ = await chat(g, ASK, message, *results(message, "the text"), **at)
        assert done["content"] == "Done."
        assert "the text" in it.last_input
        assert "value of a" in it.last_input
        answer, _ = await chat(g, {"role": "user", "content": "thanks"}, **at)
        assert answer["content"] == "Welcome."
        for part in ("the text", "value of a", "Done."):
            assert it.last_input.count(part) == 1


class Server(MCPServer):
    """A server with the tool `search`."""

    name = "server"

    async def connect(self):
        pass

    async def cleanup(self):
        pass

    async def list_tools(self, *_):
        return [McpTool(name="search", inputSchema={"type": "object", "properties": {}})]

    async def call_tool(self, *_):
        return CallToolResult(content=[TextContent(type="text", text="found")])

    async def list_prompts(self):
        raise NotImplementedError

    async def get_prompt(self, *_):
        raise NotImplementedError


async def test_tools_of_the_agents_mcp_servers_win():
    it = Working(call("search"), call("read_file", path="/x"), "Done.", mcp_servers=[Server()])
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        body = {"model": "A", "messages": [ASK], "tools": [tool("search"), tool()]}
        answer = await g.http.post("/v1/chat/completions", json=body)
        assert answer.headers[HEADER] == "search"
        message = answer.json()["choices"][0]["message"]
        assert [each["function"]["name"] for each in message["tool_calls"]] == ["read_file"]
        assert (await chat(g, ASK, message, *results(message), tools=body["tools"]))[0]["content"] == "Done."
        assert "found" in it.last_input


async def test_an_agent_in_a_sandbox():
    turns = (
        [call("exec_command", cmd="echo made > file"), call("read_file", path="/x")],
        call("exec_command", cmd="cat file"),
    )
    model = script(*turns, "Done.")
    agent = SandboxAgent(name="worker", instructions="Work.")
    config = {**OFFER, "runs": {"sandbox": {"client": "local"}}}
    async with gateway_in_memory({"A": agent}, model=model, config=config) as g:
        at = {"metadata": {"session_id": "1"}, "tools": [tool(), tool("exec_command")]}
        message, reason = await chat(g, ASK, **at)
        assert reason == "tool_calls"
        assert [each["function"]["name"] for each in message["tool_calls"]] == ["read_file"]
        assert (await chat(g, ASK, message, *results(message), **at))[0]["content"] == "Done."
        assert "made" in model.calls[-1].input[-1]["output"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_call_beside_a_handoff(stream):
    second = Agent(name="second")
    it = Working([call("read_file", path="/x"), call("transfer_to_second")], "Done.", handoffs=[second])
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK, stream=stream)
        answer, _ = await chat(g, ASK, message, *results(message), stream=stream)
        assert answer["content"] == "Done."
        assert it.tool_names() == []


async def test_an_agent_that_is_handed_back_to_has_them():
    second = Agent(name="second")
    it = Working(
        call("transfer_to_second"),
        call("transfer_to_working"),
        call("read_file", path="/x"),
        "Done.",
        handoffs=[second],
    )
    second.handoffs.append(it.agent)
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, reason = await chat(g, ASK)
        assert reason == "tool_calls"
        assert (await chat(g, ASK, message, *results(message, "the text")))[0]["content"] == "Done."
        assert "the text" in it.last_input


async def test_an_agent_used_as_a_tool_does_not_have_them():
    it = Working("Nothing.")
    outer = Agent(name="outer", tools=[it.agent.as_tool("inner", "Asks.")])
    model = script(call("inner", input="x"), "Inner.", call("read_file", path="/x"), "Done.")
    async with gateway_in_memory({"A": outer}, model=model, config=OFFER) as g:
        message, reason = await chat(g, ASK)
        assert reason == "tool_calls"
        assert [[each.name for each in turn.tools] for turn in model.calls] == [
            ["inner", "read_file"],
            ["look_up"],
            ["inner", "read_file"],
        ]
        assert (await chat(g, ASK, message, *results(message)))[0]["content"] == "Done."


@pytest.mark.parametrize("behavior", ["stop_on_first_tool", {"stop_at_tool_names": ["read_file"]}])
async def test_an_agent_that_stops_at_the_first_tool(behavior):
    it = Working(call("read_file", path="/x"), "More.", tool_use_behavior=behavior)
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        assert (await chat(g, ASK, message, *results(message, "the text")))[0]["content"] == "the text"
        later = {"role": "user", "content": "and?"}
        assert (await chat(g, ASK, message, *results(message, "the text"), later))[0]["content"] == "More."


async def test_invalid_arguments_of_the_model_reach_the_client():
    bad = function_call("read_file", "{not json", call_id="c1")
    model = ScriptedModel([[bad], [assistant_message("Done.")]])
    async with gateway_in_memory({"A": Agent(name="a")}, model=model, config=OFFER) as g:
        message, _ = await chat(g, ASK)
        assert message["tool_calls"][0]["function"]["arguments"] == "{not json"
        assert (await chat(g, ASK, message, *results(message)))[0]["content"] == "Done."


async def test_guardrails_and_an_output_type():
    @input_guardrail
    async def passes(context, agent, given):
        return GuardrailFunctionOutput(None, False)

    @output_guardrail
    async def trips(context, agent, output):
        return GuardrailFunctionOutput(None, "bad" in output)

    it = Working(["Wait.", call("read_file", path="/x")], "bad", input_guardrails=[passes], output_guardrails=[trips])
    async with gateway_in_memory({"A": it.agent}, model=it.model, config=OFFER) as g:
        message, _ = await chat(g, ASK, stream=True)
        answer, reason = await chat(g, ASK, message, *results(message), stream=True)
        assert reason == "content_filter"
        assert "bad" not in answer["content"]
