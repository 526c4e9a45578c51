"""Every tool call is authorized and reported, regardless of its source; the model sees the SDK's normal outputs."""

import asyncio
import copy
import dataclasses
import threading
from types import ModuleType

import pytest
from agents import (
    Agent,
    AgentHooks,
    CustomTool,
    FunctionTool,
    Model,
    ModelResponse,
    ModelSettings,
    RunHooks,
    Runner,
    ToolGuardrailFunctionOutput,
    Usage,
    WebSearchTool,
    function_tool,
    handoff,
    tool_input_guardrail,
)
from agents.mcp import MCPServer
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool
from openai import APIError
from openai.types.responses import ResponseCustomToolCall, ResponseFunctionWebSearch

from gateway_core import Decision, ToolOrigin, hookimpl, mark_tool, use_gateway_tool
from gateway_core.testing import call, gateway_in_memory, script


def recording(refused=(), offered=()):
    """Return a plugin class that refuses tools by name, and the data that it records."""
    recorded = {"calls": [], "asked": [], "decided": [], "errors": []}

    class Recorder:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authorize_tool(self, run, tool):
            recorded["asked"].append(tool)
            return Decision(False, "test", reason="not today") if tool.name in refused else None

        @hookimpl
        def offer_tools(self):
            return offered

        @hookimpl
        def on_tool_end(self, call):
            recorded["calls"].append(call)

        @hookimpl
        def on_decision(self, made):
            recorded["decided"].append(made)

        @hookimpl
        def on_error(self, error):
            recorded["errors"].append(error)

    return Recorder, recorded


def ended(recorded):
    return [(c.tool.name, c.tool.source, c.tool.agent_name, c.outcome) for c in recorded["calls"]]


async def ask(g, model, *, stream=False, **options):
    messages = [{"role": "user", "content": "hi"}]
    answer = await g.openai.chat.completions.create(model=model, messages=messages, stream=stream, **options)
    if not stream:
        return answer.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])


def outputs(model, call=-1):
    items = model.calls[call].input
    return [i["output"] for i in items if isinstance(i, dict) and i.get("type") == "function_call_output"]


@function_tool
def native(text: str = "") -> str:
    """Does it."""
    return f"native {text}"


@function_tool
async def failing() -> str:
    """Fails."""
    raise ValueError("inner secret")


class Mcp(MCPServer):
    """An MCP server without a transport."""

    name = "files"

    async def connect(self):
        pass

    async def cleanup(self):
        pass

    async def list_tools(self, run_context=None, agent=None):
        return [McpTool(name="read", description="Reads.", inputSchema={"type": "object", "properties": {}})]

    async def call_tool(self, tool_name, arguments, meta=None):
        return CallToolResult(content=[TextContent(type="text", text="read it")])

    async def list_prompts(self):
        raise NotImplementedError

    async def get_prompt(self, name, arguments=None):
        raise NotImplementedError


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_refused_call_is_reported_to_the_model_and_to_plugins(stream):
    plugin, recorded = recording(refused={"native"})
    model = script(call("native", text="argument"), "as you wish")
    agent = Agent(name="inner name", tools=[native])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        assert await ask(g, "X", stream=stream) == "as you wish"
        [(run, outcome)] = g.ended
    assert outputs(model) == ["The tool native may not be called: not today."]
    [error] = recorded["errors"]
    assert (error.code, str(error.stage), error.agent_id, error.request_id, error.principal_id) == (
        "tool_refused",
        "tool",
        "X",
        run.request_id,
        run.principal.id,
    )
    assert error.source == "tool native of inner name"
    assert "argument" not in str(error)
    assert ended(recorded) == [("native", "sdk-native", "inner name", "refused")]
    [made] = [made for made in recorded["decided"] if made.kind == "tool"]
    assert (made.kind, made.subject, made.agent_id, made.decision.allowed) == ("tool", "native", "X", False)
    assert outcome.error is None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("nested", [False, True], ids=["own", "agent as tool"])
async def test_a_refused_call_fails_the_run_if_configured(stream, nested):
    plugin, recorded = recording(refused={"native"})
    agent = Agent(name="a", tools=[native], model=script(call("native"), "never"))
    if nested:
        inner = agent.as_tool("inner", "Asks the other.")
        agent = Agent(name="b", tools=[inner], model=script(call("inner", input="x"), "hides it"))
    config = {"runs": {"refused_tool": "fail"}}
    async with gateway_in_memory({"X": agent}, plugins={"p": plugin}, config=config) as g:
        with pytest.raises(APIError) as caught:
            await ask(g, "X", stream=stream)
        assert caught.value.code == "tool_refused"
        [(_, outcome)] = g.ended
    assert outcome.error is recorded["errors"][0]
    assert len(recorded["errors"]) == 1


async def test_the_source_of_each_kind_of_tool_is_reported():
    @function_tool(name_override="ours")
    async def ours() -> str:
        """Ours."""
        return "ours"

    @function_tool(name_override="git__search")
    async def remote() -> str:
        """Remote."""
        return "remote"

    mark_tool(remote, ToolOrigin("mcp", server="git"))
    plugin, recorded = recording(offered=[ours, remote])
    model = script(
        [call("native"), call("renamed"), call("git__search"), call("read")],
        call("helper", input="x"),
        call("native"),
        "helped",
        call("transfer_to_target"),
        call("native"),
        "done",
    )
    helper = Agent(name="helper", tools=[native])
    target = Agent(name="target", tools=[native])
    agent = Agent(
        name="first",
        tools=[
            native,
            use_gateway_tool("ours", rename="renamed"),
            use_gateway_tool("git/search"),
            helper.as_tool("helper", "Helps."),
        ],
        handoffs=[target],
        mcp_servers=[Mcp()],
    )
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        assert await ask(g, "X") == "done"
    expected = [
        ("git/search", "mcp", "first", "ok"),
        ("helper", "sdk-native", "first", "ok"),
        ("native", "sdk-native", "first", "ok"),
        ("native", "sdk-native", "helper", "ok"),
        ("native", "sdk-native", "target", "ok"),
        ("ours", "gateway", "first", "ok"),
        ("read", "mcp", "first", "ok"),
    ]
    assert sorted(ended(recorded)) == expected
    # Policies receive the same tools and names as `on_tool_end`.
    assert sorted((t.name, t.source, t.agent_name) for t in recorded["asked"]) == [e[:3] for e in expected]
    assert {t.server for t in recorded["asked"]} == {None, "git", "files"}
    assert all(c.seconds > 0 and c.call_id.startswith("call_") and c.run.agent_id == "X" for c in recorded["calls"])


async def test_a_renamed_gateway_tool_is_refused_by_its_own_name():
    @function_tool(name_override="danger")
    async def danger() -> str:
        """Dangerous."""
        raise AssertionError

    plugin, _ = recording(refused={"danger"}, offered=[danger])
    model = script(call("harmless"), "fine")
    agent = Agent(name="x", tools=[use_gateway_tool("danger", rename="harmless")])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "X")
    assert "may not be called" in outputs(model)[0]


async def test_tools_of_agents_created_at_run_time_are_authorized():
    def made(*_):
        return Agent(name="made", tools=[function_tool(lambda: "x", name_override="late", description_override="d")])

    async def make(*_):
        return made()

    async def run_workflow(question: str):
        await Runner.run(made(), question)
        return "done"

    # A handoff that creates its agent when it is called, so that the agent graph does not contain it.
    link = handoff(made(), tool_name_override="go")
    link._agent_ref, link.on_invoke_handoff = None, make
    first = Agent(name="first", handoffs=[link])
    plugin, recorded = recording(refused={"late"})
    model = script(call("late"), "x", call("go"), call("late"), "y")
    async with gateway_in_memory({"W": run_workflow, "X": first}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "W")
        assert "may not" in outputs(model)[0]
        await ask(g, "X")
        assert "may not" in outputs(model)[-1]
    assert ended(recorded) == [("late", "sdk-native", "made", "refused")] * 2


def late():
    def never():
        raise AssertionError

    return function_tool(never, name_override="late", description_override="Comes late.")


class GivesOnStart(AgentHooks):
    """Adds attributes to an agent when it starts, after the gateway has bound its tools."""

    def __init__(self, **more):
        self.more = more

    async def on_start(self, context, agent):
        for name, given in self.more.items():
            getattr(agent, name).append(given)


def copied(agent):
    other = copy.copy(agent)
    other.tools = [late()]
    return other


LATE = {
    "on_start": lambda: Agent(name="a", tools=[native], hooks=GivesOnStart(tools=late())),
    "append": lambda: _run_with(lambda agent: agent.tools.append(late()) or agent),
    "assign": lambda: _run_with(lambda agent: setattr(agent, "tools", [late()]) or agent),
    "copy": lambda: _run_with(copied),
    "clone": lambda: _run_with(lambda agent: agent.clone(tools=[late()])),
    "replaced": lambda: _run_with(
        lambda agent: agent.clone(tools=[dataclasses.replace(agent.tools[0], name="late", tool_input_guardrails=None)])
    ),
}


def _run_with(change):
    """Return a workflow that changes an agent whose tools were bound at load time."""
    module = ModuleType("late_tools")
    module.helper = Agent(name="a", tools=[native])

    async def run_workflow(question: str):
        await Runner.run(change(module.helper), question)
        return "done"

    module.run_workflow = run_workflow
    return module


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("how", LATE)
async def test_tools_added_to_a_loaded_agent_at_run_time_are_authorized(how, stream):
    plugin, recorded = recording(refused={"late"})
    model = script(call("late"), "x")
    async with gateway_in_memory({"X": LATE[how]()}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "X", stream=stream)
    assert outputs(model) == ["The tool late may not be called: not today."]
    assert ended(recorded) == [("late", "sdk-native", "a", "refused")]


async def test_a_tool_added_by_a_tool_is_authorized():
    @function_tool
    def bring() -> str:
        """Brings another."""
        agent.tools.append(late())
        return "brought"

    agent = Agent(name="a", tools=[bring])
    plugin, _ = recording(refused={"late"})
    model = script(call("bring"), call("late"), "x")
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "X")
    assert outputs(model) == ["brought", "The tool late may not be called: not today."]


async def test_a_gateway_tool_added_at_run_time_works():
    @function_tool(name_override="offered")
    async def offered() -> str:
        """Offered."""
        return "from the gateway"

    plugin, recorded = recording(offered=[offered])
    model = script(call("offered"), "x")
    module = _run_with(lambda agent: agent.tools.append(use_gateway_tool("offered")) or agent)
    async with gateway_in_memory({"W": module}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "W")
    assert outputs(model) == ["from the gateway"]
    assert ended(recorded) == [("offered", "gateway", "a", "ok")]


@pytest.mark.parametrize("nested", [False, True], ids=["own", "agent as tool"])
async def test_a_refused_call_without_a_guard_ends_the_run(nested):
    """The SDK lists the tools of a server added in `on_start` before the gateway can install its guard."""

    class Server(Mcp):
        async def call_tool(self, *_, **__):
            raise AssertionError

    plugin, recorded = recording(refused={"read"})
    agent = Agent(name="a", hooks=GivesOnStart(mcp_servers=Server()), model=script(call("read"), "never"))
    if nested:
        inner = agent.as_tool("inner", "Asks the other.")
        agent = Agent(name="b", tools=[inner], model=script(call("inner", input="x"), "never"))
    async with gateway_in_memory({"X": agent}, plugins={"p": plugin}) as g:
        with pytest.raises(APIError) as caught:
            await ask(g, "X")
        assert caught.value.code == "tool_refused"
        [(_, outcome)] = g.ended
    assert outcome.error is recorded["errors"][0]
    assert len(recorded["errors"]) == 1
    assert ended(recorded)[0] == ("read", "mcp", "a", "refused")
    assert len(agent.model.calls) == 1


async def test_a_tool_that_does_not_support_guardrails_is_authorized_when_it_is_called():
    async def run(context, text):
        raise AssertionError

    plugin, recorded = recording(refused={"shell"})
    shell = CustomTool(name="shell", description="Runs anything.", on_invoke_tool=run)
    called = ResponseCustomToolCall(type="custom_tool_call", call_id="c1", name="shell", input="rm")
    model = ScriptedModel([[called], [assistant_message("never")]])
    # The agent has its own model, so the gateway cannot hide the tool from it.
    async with gateway_in_memory({"X": Agent(name="a", tools=[shell], model=model)}, plugins={"p": plugin}) as g:
        with pytest.raises(APIError) as caught:
            await ask(g, "X")
    assert caught.value.code == "tool_refused"
    assert ended(recorded) == [("shell", "sdk-native", "a", "refused")]


async def test_an_mcp_servers_tool_is_refused():
    plugin, recorded = recording(refused={"read"})
    model = script(call("read"), "fine")
    async with gateway_in_memory({"X": Agent(name="x", mcp_servers=[Mcp()])}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "X")
    assert "may not be called" in outputs(model)[0]
    assert ended(recorded) == [("read", "mcp", "x", "refused")]


async def test_an_mcp_tool_with_the_server_in_its_name_is_known_by_its_own_name():
    plugin, recorded = recording(refused={"read"})
    server = Mcp()
    agent = Agent(name="x", mcp_servers=[server], mcp_config={"include_server_in_tool_names": True})
    model = script(call(f"mcp_{server.name}__read"), "never")
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        with pytest.raises(APIError) as caught:
            await ask(g, "X")
    assert caught.value.code == "tool_refused"
    assert ended(recorded) == [("read", "mcp", "x", "refused")]


async def test_refused_hosted_tools_are_hidden_from_the_model():
    plugin, recorded = recording(refused={"web_search"})
    model = script("one", "two")
    agent = Agent(name="x", tools=[native, WebSearchTool()])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        await ask(g, "X")
        await ask(g, "X", stream=True)
    assert [[tool.name for tool in c.tools] for c in model.calls] == [["native"], ["native"]]
    assert [(t.name, t.source) for t in recorded["asked"]] == [("web_search", "hosted")] * 2
    assert {e.code for e in recorded["errors"]} == {"tool_refused"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_hosted_tool_is_judged_by_the_agent_that_calls_the_model(stream):
    asked = []

    class RefusesTheTarget:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authorize_tool(self, run, tool):
            asked.append((tool.name, tool.agent_id, tool.agent_name))
            return Decision(False, "test", reason="no") if tool.agent_id == "Target" else None

    model = script(call("transfer_to_target"), "done")
    target = Agent(name="target", tools=[WebSearchTool()])
    first = Agent(name="first", tools=[WebSearchTool()], handoffs=[target])
    served = {"First": first, "Target": target}
    async with gateway_in_memory(served, model=model, plugins={"p": RefusesTheTarget}) as g:
        assert await ask(g, "First", stream=stream) == "done"
    assert [[tool.name for tool in c.tools] for c in model.calls] == [["web_search"], []]
    assert [a for a in asked if a[0] == "web_search"] == [
        ("web_search", "First", "first"),
        ("web_search", "Target", "target"),
    ]


async def test_calls_of_hosted_tools_are_reported():
    def search(call_id, status):
        action = {"type": "search", "query": "canary", "queries": []}
        return ResponseFunctionWebSearch(id=call_id, type="web_search_call", status=status, action=action)

    plugin, recorded = recording()
    model = ScriptedModel([[search("ws_1", "completed"), search("ws_2", "failed"), assistant_message("found")]])
    agent = Agent(name="x", tools=[WebSearchTool()])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        assert await ask(g, "X") == "found"
    assert [(c.call_id, c.tool.name, c.tool.source, c.outcome) for c in recorded["calls"]] == [
        ("ws_1", "web_search", "hosted", "ok"),
        ("ws_2", "web_search", "hosted", "error"),
    ]


async def test_the_authors_own_guardrails_and_hooks_still_work():
    seen = []

    @tool_input_guardrail
    def own(data):
        seen.append(data.context.tool_arguments)
        return ToolGuardrailFunctionOutput.reject_content("not on Sundays")

    class Hooks(RunHooks):
        async def on_tool_start(self, context, agent, tool):
            seen.append(f"start {tool.name}")

        async def on_tool_end(self, context, agent, tool, result):
            seen.append(f"end {tool.name} {result}")

    @function_tool(tool_input_guardrails=[own])
    def guarded() -> str:
        """Guarded."""
        raise AssertionError

    @function_tool
    def free() -> str:
        """Free."""
        return "fine"

    model = script(call("guarded"), call("free"), "done")

    async def run_workflow(question: str):
        await Runner.run(Agent(name="a", tools=[guarded, free], model=model), question, hooks=Hooks())
        return "done"

    plugin, _ = recording()
    async with gateway_in_memory({"W": run_workflow}, plugins={"p": plugin}) as g:
        await ask(g, "W")
    assert outputs(model) == ["not on Sundays", "fine"]
    assert seen == ["{}", "start free", "end free fine"]


async def test_the_guard_is_installed_once_and_only_with_a_tool_policy():
    @function_tool
    def fresh() -> str:
        """Fresh."""
        return ""

    agents = {"A": Agent(name="a", tools=[fresh]), "B": Agent(name="b", tools=[fresh])}
    nobody = {"plugins": {"tool_policy": {"enabled": False}, "security": {"enabled": False}}}
    async with gateway_in_memory(agents, model=script("x"), config=nobody):
        assert fresh.tool_input_guardrails is None
    plugin, _ = recording()
    for _ in range(2):
        async with gateway_in_memory(agents, model=script("x"), plugins={"p": plugin}) as g:
            await g.gateway.reload()
    assert len([x for x in fresh.tool_input_guardrails if x.get_name() == "agent_gateway"]) == 1


async def test_a_closed_tool_requires_a_policy_that_allows_it():
    @function_tool(name_override="closed")
    async def closed() -> str:
        """Closed."""
        return "open"

    mark_tool(closed, ToolOrigin("gateway", open=False))

    class Offers:
        def __init__(self, *_):
            pass

        @hookimpl
        def offer_tools(self):
            return [closed]

    model = script(call("closed"), "x")
    agent = Agent(name="x", tools=[use_gateway_tool("closed")])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": Offers}) as g:
        await ask(g, "X")
    assert outputs(model) == ["The tool closed may not be called: no policy allows it."]


@function_tool
async def parsing(number: int) -> int:
    """Parses."""
    return number


@function_tool(failure_error_function=lambda _, error: f"custom: {error}")
def custom() -> str:
    """Fails in its own words."""
    raise ValueError("why")


@function_tool(timeout=0.01)
async def slow() -> str:
    """Waits."""
    await asyncio.Event().wait()
    return ""


async def _raw(context: ToolContext, arguments: str) -> str:
    return arguments


raw = FunctionTool("raw", "Raw.", {"type": "object", "properties": {}}, _raw, strict_json_schema=False)

FAILURES = [
    ("failing", {}, "error"),
    ("parsing", {"number": "x"}, "error"),
    ("parsing", {"number": 7}, "ok"),
    ("custom", {}, "error"),
    ("slow", {}, "error"),
    ("raw", {"a": 1}, "ok"),
    ("native", {"text": "x"}, "ok"),
]


@pytest.mark.parametrize(("name", "arguments", "outcome"), FAILURES)
async def test_tool_outputs_are_the_same_as_without_a_gateway(name, arguments, outcome):
    def agent():
        return Agent(name="x", tools=[failing, parsing, custom, slow, raw, native])

    alone = script(call(name, **arguments), "done")
    await Runner.run(agent().clone(model=alone), "hi")
    governed = script(call(name, **arguments), "done")
    plugin, recorded = recording()
    async with gateway_in_memory({"X": agent()}, model=governed, plugins={"p": plugin}) as g:
        await ask(g, "X")
    assert outputs(governed) == outputs(alone)
    assert [vars(t) for t in governed.calls[0].tools] == [vars(t) for t in alone.calls[0].tools]
    assert ended(recorded) == [(name, "sdk-native", "x", outcome)]


@pytest.mark.parametrize(
    ("name", "message", "cause"),
    [
        ("failing", "the tool failing failed; the model received an error message", ValueError),
        ("slow", "the tool slow timed out after 0.01 s; the model received an error message", type(None)),
    ],
)
async def test_a_failure_returned_to_the_model_is_reported(name, message, cause, caplog):
    plugin, recorded = recording()
    agent = Agent(name="x", tools=[failing, slow])
    async with gateway_in_memory({"X": agent}, model=script(call(name), "done"), plugins={"p": plugin}) as g:
        assert await ask(g, "X") == "done"
        (run, outcome) = g.ended[0]
    (error,) = recorded["errors"]
    assert (error.message, error.code, error.stage) == (message, "tool_failed", "tool")
    assert (error.agent_id, error.request_id, type(error.__cause__)) == ("X", run.request_id, cause)
    assert outcome.error is None
    assert message in caplog.text


async def test_a_tool_that_ends_the_run_is_reported_with_concurrent_calls():
    started = asyncio.Event()

    @function_tool(failure_error_function=None)
    async def fatal() -> str:
        """Ends the run."""
        await started.wait()
        raise ValueError

    @function_tool
    async def concurrent() -> str:
        """Waits."""
        started.set()
        await asyncio.Event().wait()
        return ""

    plugin, recorded = recording()
    agent = Agent(name="x", tools=[fatal, concurrent], model_settings=ModelSettings(parallel_tool_calls=True))
    model = script([call("fatal"), call("concurrent")])
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": plugin}) as g:
        with pytest.raises(APIError):
            await ask(g, "X")
    assert sorted(ended(recorded)) == [
        ("concurrent", "sdk-native", "x", "cancelled"),
        ("fatal", "sdk-native", "x", "error"),
    ]


async def test_a_call_in_a_run_that_is_stopped_is_cancelled():
    started = asyncio.Event()

    @function_tool
    async def endless() -> str:
        """Waits."""
        started.set()
        await asyncio.Event().wait()
        return ""

    plugin, recorded = recording()
    model = script(call("endless"), "x")
    async with gateway_in_memory({"X": Agent(name="x", tools=[endless])}, model=model, plugins={"p": plugin}) as g:
        task = asyncio.create_task(ask(g, "X"))
        await started.wait()
        await g.gateway.engine.drain(0)
        with pytest.raises(APIError):
            await task
    assert ended(recorded) == [("endless", "sdk-native", "x", "cancelled")]


async def test_a_call_in_a_run_that_the_author_streams_is_reported():
    started = asyncio.Event()

    @function_tool
    async def endless() -> str:
        """Waits."""
        started.set()
        await asyncio.Event().wait()
        return ""

    async def run_workflow(question: str):
        agent = Agent(name="streamed", tools=[endless], model=script(call("endless")))
        async for event in Runner.run_streamed(agent, question).stream_events():
            del event
        return "never"

    plugin, recorded = recording()
    async with gateway_in_memory({"W": run_workflow}, plugins={"p": plugin}) as g:
        task = asyncio.create_task(ask(g, "W"))
        await started.wait()
        await g.gateway.engine.drain(0)
        with pytest.raises(APIError):
            await task
    assert ended(recorded) == [("endless", "sdk-native", "streamed", "cancelled")]


async def test_blocking_tools_do_not_block_other_requests():
    release = threading.Event()
    running = threading.Semaphore(0)

    @function_tool
    def block() -> str:
        """Blocks."""
        running.release()
        release.wait(20)
        return "unblocked"

    @function_tool
    async def resolve() -> str:
        """Resolves a name, as a connection to a model does."""
        assert await asyncio.wait_for(asyncio.get_running_loop().getaddrinfo("localhost", 80), 5)
        return "resolved"

    # Four agents occupy all 64 threads and have more work queued.
    agents = {f"A{i}": Agent(name="a", tools=[block], model=Always("block")) for i in range(4)}
    model = script(call("resolve"), "done")
    agents["Resolving"] = Agent(name="r", tools=[resolve], model=model)
    async with gateway_in_memory(agents) as g:
        calls = [asyncio.create_task(ask(g, f"A{i % 4}")) for i in range(68)]
        loop = asyncio.get_running_loop()
        try:
            for _ in range(64):
                assert await asyncio.wait_for(_acquired(running), 10)
            assert not running.acquire(blocking=False)
            # The gateway's own work: name resolution, and threads outside runs.
            assert await asyncio.wait_for(loop.getaddrinfo("localhost", 80), 5)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
            await ask(g, "Resolving")
            assert outputs(model) == ["resolved"]
        finally:
            release.set()
        assert await asyncio.gather(*calls) == ["done"] * 68


async def test_an_agent_cannot_occupy_all_threads():
    release = threading.Event()
    held = []

    @function_tool
    def block() -> str:
        """Blocks."""
        held.append(1)
        release.wait(20)
        return ""

    agents = {"Greedy": Agent(name="g", tools=[block], model=Always("block")), "Small": Agent(name="s", tools=[native])}
    config = {"runs": {"tool_threads": 4, "tool_threads_per_agent": 2}}
    model = script(call("native"), "answered")
    async with gateway_in_memory(agents, model=model, config=config) as g:
        greedy = [asyncio.create_task(ask(g, "Greedy")) for _ in range(6)]
        try:
            async with asyncio.timeout(10):
                while len(held) < 2:
                    await asyncio.sleep(0.01)
                assert await ask(g, "Small") == "answered"
            assert len(held) == 2
            assert (await g.http.get("/admin/tools")).json()["threads"]["Greedy"] == 2
        finally:
            release.set()
        assert await asyncio.gather(*greedy) == ["done"] * 6
        async with asyncio.timeout(10):
            while g.gateway.tool_threads():
                await asyncio.sleep(0.01)
    assert len(held) == 6


async def _acquired(semaphore):
    while not semaphore.acquire(blocking=False):
        await asyncio.sleep(0.005)
    return True


class Always(Model):
    """Calls a tool once in each run and then answers "done"; runs can share it."""

    def __init__(self, tool):
        self._tool = tool

    async def get_response(self, system_instructions, input, *_, **__):
        called = not isinstance(input, str) and any(i.get("type") == "function_call_output" for i in input)
        item = assistant_message("done") if called else function_call(self._tool, {}, call_id="c")
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


@pytest.mark.parametrize("stream", [False, True])
async def test_open_webui_shows_failed_and_refused_calls_as_failed(stream):
    @function_tool
    def broken() -> str:
        """Fail."""
        raise ValueError("canary")

    @function_tool
    def refused() -> str:
        """Never called."""
        return ""

    @function_tool
    def works() -> str:
        """Work."""
        return "fine"

    plugin, _ = recording(refused={"refused"})
    model = script([call("broken"), call("refused"), call("works")], "done")
    agent = Agent(name="x", tools=[broken, refused, works], model=model)
    async with gateway_in_memory({"X": agent}, plugins={"p": plugin}) as g:
        body = {"model": "X", "stream": stream, "messages": [{"role": "user", "content": "go"}]}
        answer = await g.http.post("/v1/chat/completions", json=body, headers={"x-openwebui-user-id": "1"})
    assert answer.text.count('status=\\"failed\\"') == 2
    assert answer.text.count("<details") == 3
