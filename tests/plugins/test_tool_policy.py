"""Authorization and limits of tool calls; a tool within its limits behaves as without them."""

import asyncio
import copy
import threading

import pytest
from agents import Agent, FunctionTool, ToolOutputText, function_tool
from agents.mcp import MCPServer
from gateway_plugins.tool_policy import Rules, Settings, ToolPolicy
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool

from gateway_core import hookimpl, use_gateway_tool
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Principal, RunContext, ToolInfo

RUN = RunContext("r", Principal("p"), "Agent")


def info(name, source="sdk-native", server=None, agent="Agent"):
    return ToolInfo(name, source, agent, "inner", server=server)


async def decide(settings, tool):
    decision = await ToolPolicy(None, settings).authorize_tool(RUN, tool)
    return None if decision is None else decision.allowed


@pytest.mark.parametrize(
    ("settings", "tool", "allowed"),
    [
        (Settings(), info("any"), None),
        (Settings(deny=["rm"]), info("rm"), False),
        (Settings(deny=["rm"]), info("rmdir"), None),
        (Settings(deny=["mail/*"]), info("mail/send", "gateway"), False),
        (Settings(deny=["mail/*"]), info("mailer/send", "gateway"), None),
        (Settings(deny=["files/*"]), info("read", "mcp", "files"), False),
        (Settings(deny=["files/*"]), info("files__read", "mcp", "files"), False),
        (Settings(deny=["files/*"]), info("files/read", "mcp", "files"), False),
        (Settings(deny=["files__read"]), info("files/read", "mcp", "files"), False),
        (Settings(deny=["read"]), info("files/read", "mcp", "files"), False),
        (Settings(deny=["files__read"]), info("files__read"), False),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("github/x", "mcp", "github"), True),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("github/x", "mcp", "evil"), False),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("github__x", "mcp", "evil"), False),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("evil/github/x", "mcp", "evil"), False),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("github__x"), False),
        (Settings(agents={"Agent": Rules(allow=["github/*"])}), info("github/x"), False),
        (Settings(agents={"agent": Rules(deny=["x"])}), info("x"), False),
        (Settings(agents={"agent": Rules(deny=["x"])}), info("x", agent="Other"), None),
        (Settings(agents={"Agent": Rules(allow=["x"])}), info("x"), True),
        (Settings(agents={"Agent": Rules(allow=["x"])}), info("y"), False),
        (Settings(agents={"Agent": Rules(allow=[])}), info("y"), False),
        (Settings(agents={"Agent": Rules(allow=["**"], deny=["x"])}), info("x"), False),
        (Settings(deny=["x"], agents={"Agent": Rules(allow=["x"])}), info("x"), False),
        (Settings(closed=["mcp"]), info("x", "mcp", "s"), False),
        (Settings(closed=["mcp"]), info("x"), None),
        (Settings(closed=["mcp"], agents={"Agent": Rules(allow=["s/*"])}), info("x", "mcp", "s"), True),
    ],
)
async def test_authorization(settings, tool, allowed):
    assert await decide(settings, tool) is allowed


def test_an_unknown_source_is_rejected():
    with pytest.raises(ConfigError, match="one of: sdk-native"):
        ToolPolicy(None, Settings(closed=["gatway"]))


def test_the_tables_are_parsed():
    table = {"deny": ["a"], "timeout": "5s", "agents": {"X": {"allow": ["b"]}}}
    config = load_config(environ={}, overrides={"plugins": {"tool_policy": table}})
    own = {k: v for k, v in config.plugins["tool_policy"].items() if k != "enabled"}
    settings = config.structure(own, Settings, "plugins", "tool_policy")
    assert (settings.deny, settings.timeout, settings.agents) == (["a"], 5.0, {"X": Rules(allow=["b"])})


async def answer_of(tool, settings=None, **arguments):
    """Return the output of a tool that the model reads."""
    name = tool.name
    model = script(call(name, **arguments), "done")
    config = {"plugins": {"tool_policy": settings or {}}}
    async with gateway_in_memory({"X": Agent(name="x", tools=[tool])}, model=model, config=config) as g:
        messages = [{"role": "user", "content": "hi"}]
        await g.openai.chat.completions.create(model="X", messages=messages)
        errors = (await g.http.get("/admin/agents/errors")).json()["errors"]
    [item] = [i for i in model.calls[-1].input if i.get("type") == "function_call_output"]
    return item["output"], errors


@function_tool
async def echo(text: str) -> str:
    """Says it again."""
    return text


async def test_a_denial_is_reported_to_the_model_and_recorded():
    answer, [error] = await answer_of(copy.copy(echo), {"deny": ["echo"]}, text="secret words")
    assert answer == "The tool echo may not be called: denied for all agents."
    assert (error["stage"], error["code"], error["agent_id"]) == ("tool", "tool_refused", "X")
    assert error["request_ids"]
    assert error["principal_id"]
    assert "secret words" not in str(error)


async def test_a_plain_function_and_a_coroutine_time_out():
    release = threading.Event()

    @function_tool
    def plain() -> str:
        """Blocks."""
        release.wait(20)
        return ""

    @function_tool
    async def coroutine() -> str:
        """Waits."""
        await asyncio.Event().wait()
        return ""

    try:
        for tool in (plain, coroutine):
            answer, _ = await answer_of(tool, {"timeout": "50ms"})
            assert answer == f"Tool '{tool.name}' timed out after 0.05 seconds."
            assert copy.copy(tool).timeout_seconds == 0.05
    finally:
        release.set()


async def test_a_tools_own_timeout_and_agents_as_tools_are_unchanged():
    @function_tool(timeout=7)
    async def own() -> str:
        """Has a limit."""
        return ""

    nested = Agent(name="n").as_tool("nested", "Nested.")
    async with gateway_in_memory({"X": Agent(name="x", tools=[own, nested])}):
        assert own.timeout_seconds == 7
        assert nested.timeout_seconds is None
    plain = copy.copy(echo)
    async with gateway_in_memory(
        {"X": Agent(name="x", tools=[plain])}, config={"plugins": {"tool_policy": {"timeout": 0}}}
    ):
        assert plain.timeout_seconds is None


async def test_too_large_arguments_are_rejected():
    limits = {"max_arguments": 40}
    assert (await answer_of(copy.copy(echo), limits, text="ok"))[0] == "ok"
    answer, _ = await answer_of(copy.copy(echo), limits, text="x" * 40)
    assert answer == "The arguments are too large: the maximum is 40 bytes."


@pytest.mark.parametrize(
    ("result", "read"),
    [
        ("x" * 10, "x" * 10),
        ("x" * 11, "xxxxxxxxxx\n[cut off here: 10 of 11 bytes]"),
        ("ééééé", "ééééé"),
        ("éééééé", "ééééé\n[cut off here: 10 of 12 bytes]"),
        ("xééééé", "xéééé\n[cut off here: 10 of 11 bytes]"),
        ({"a": 1}, "{'a': 1}"),
        ({"a": "long enough"}, '{"a": "lon\n[cut off here: 10 of 20 bytes]'),
        (None, "None"),
        (12345678901234, "12345678901234"),
    ],
)
async def test_too_large_results_are_cut_off(result, read):
    async def give(context, arguments):
        return result

    tool = FunctionTool("give", "Gives.", {"type": "object", "properties": {}}, give, strict_json_schema=False)
    assert (await answer_of(tool, {"max_result": 10}))[0] == read


async def test_too_large_structured_text_is_cut_off():
    async def give(context, arguments):
        return ToolOutputText(text="y" * 1000)

    tool = FunctionTool("give", "Gives.", {"type": "object", "properties": {}}, give, strict_json_schema=False)
    answer, _ = await answer_of(tool, {"max_result": 100})
    assert len(answer) < 200
    assert "cut off here" in answer


async def test_the_limits_are_applied_once():
    tool = copy.copy(echo)
    agents = {"A": Agent(name="a", tools=[tool]), "B": Agent(name="b", tools=[tool])}
    for _ in range(2):
        async with gateway_in_memory(agents):
            pass
    assert len(tool.tool_output_guardrails) == 1
    assert sorted(guard.get_name() for guard in tool.tool_input_guardrails) == ["agent_gateway", "max_arguments"]


async def test_a_gateway_tool_is_limited():
    class Offers:
        def __init__(self, *_):
            pass

        @hookimpl
        def offer_tools(self):
            return [echo]

    model = script(call("echo", text="x" * 200), "done")
    agent = Agent(name="x", tools=[use_gateway_tool("echo")])
    config = {"plugins": {"tool_policy": {"max_result": 100}}}
    async with gateway_in_memory({"X": agent}, model=model, plugins={"p": Offers}, config=config) as g:
        await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
    assert echo.tool_output_guardrails is None
    assert "cut off" in model.calls[-1].input[-1]["output"]


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
        return CallToolResult(content=[TextContent(type="text", text="z" * 1000)])

    async def list_prompts(self):
        raise NotImplementedError

    async def get_prompt(self, name, arguments=None):
        raise NotImplementedError


async def test_results_of_an_agents_own_mcp_server_are_cut_off():
    model = script(call("read"), "done")
    config = {"plugins": {"tool_policy": {"max_result": 100}}}
    async with gateway_in_memory({"X": Agent(name="x", mcp_servers=[Mcp()])}, model=model, config=config) as g:
        await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "hi"}])
    answer = str(model.calls[-1].input[-1]["output"])
    assert "cut off here" in answer
    assert len(answer) < 200
