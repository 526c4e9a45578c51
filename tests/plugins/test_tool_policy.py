"""Authorization and limits of tool calls; a tool within its limits behaves as without them."""

import asyncio
import copy
import threading
import tomllib

import pytest
from agents import Agent, FunctionTool, ToolOutputText, function_tool
from agents.mcp import MCPServer
from gateway_plugins.security.settings import Settings as SecuritySettings
from gateway_plugins.tool_policy import Settings
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool

from gateway_core import hookimpl, use_gateway_tool
from gateway_core.config.settings import load_config
from gateway_core.errors import ConfigError
from gateway_core.testing import call, gateway_in_memory, script

LABS_X = '[plugins.security.namespaces."labs/X"]'


def settings_of(table):
    config = load_config(environ={}, overrides={"plugins": {"tool_policy": table}})
    own = {key: value for key, value in config.plugins["tool_policy"].items() if key != "enabled"}
    return Settings.from_table(own, lambda part, cls: config.structure(part, cls, "plugins", "tool_policy"))


def test_the_table_is_parsed():
    settings = settings_of({"timeout": "5s", "max_result": "2 KiB"})
    assert (settings.timeout, settings.max_arguments, settings.max_result) == (5.0, 64 * 1024, 2048)
    with pytest.raises(ConfigError, match="timeouts"):
        settings_of({"timeouts": "5s"})


@pytest.mark.parametrize(
    ("table", "instead"),
    [
        ({"deny": ["a", "b/*"]}, '[plugins.security.rules] block_tools = ["a", "b/*"]'),
        ({"closed": ["mcp"]}, '[plugins.security.rules] closed_tools = ["mcp"]'),
        (
            {"agents": {"labs/X": {"allow": ["a"], "deny": ["b"]}}},
            f'{LABS_X} only_tools = ["a"]; {LABS_X} block_tools = ["b"]',
        ),
    ],
)
def test_a_former_rule_is_rejected_with_the_line_to_write_instead(table, instead):
    with pytest.raises(ConfigError, match="settings of security") as raised:
        settings_of(table)
    assert raised.value.hint == f"write instead: {instead}"
    for line in raised.value.hint.removeprefix("write instead: ").split("; "):
        written = tomllib.loads(line.replace("] ", "]\n", 1))["plugins"]["security"]
        load_config(environ={}).structure(written, SecuritySettings, "plugins", "security")


async def answer_of(tool, settings=None, *, security=None, **arguments):
    """Return the output of a tool that the model reads."""
    name = tool.name
    model = script(call(name, **arguments), "done")
    config = {"plugins": {"tool_policy": settings or {}, "security": security or {}}}
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
    answer, [error] = await answer_of(
        copy.copy(echo), security={"rules": {"block_tools": ["echo"]}}, text="secret words"
    )
    assert answer == "The tool echo may not be called: blocked by block_tools."
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
