"""Built-in plugins accept changed settings while the gateway runs."""

from agents import Agent, function_tool
from gateway_plugins.security.settings import RuleSettings

from gateway_core import GatewayError, use_gateway_tool
from gateway_core.testing import call, gateway_in_memory, script


@function_tool
def look() -> str:
    """Look."""
    return "seen"


def plugin_of(g, name):
    return g.gateway.plugins.loaded[name].plugin


async def ask(g) -> None:
    body = {"model": "X", "messages": [{"role": "user", "content": "x"}]}
    await g.http.post("/v1/chat/completions", json=body)


async def test_other_rules_hold_for_the_next_call():
    model = script(call("look"), "1", call("look"), "2", call("look"), "3")
    async with gateway_in_memory({"X": Agent(name="x", tools=[look], model=model)}) as g:
        security = plugin_of(g, "security")
        outputs = []
        for blocked in ([], ["look"], []):
            await security.reconfigure(security.Config(rules=RuleSettings(block_tools=blocked)))
            await ask(g)
            outputs.append(model.calls[-1].input[-1]["output"])
    assert outputs[0] == outputs[2] == "seen"
    assert "blocked by block_tools" in outputs[1]


async def test_other_gateway_tools_are_there_after_the_reload(tmp_path):
    (tmp_path / "one.py").write_text('def greet() -> str:\n    """Greet."""\n    return "hello"\n')
    model = script(call("greet"), "1", call("greet"), "2")
    agent = Agent(name="x", tools=[use_gateway_tool("greet", optional=True)], model=model)
    async with gateway_in_memory({"X": agent}) as g:
        tools = plugin_of(g, "gateway_tools")
        await ask(g)
        assert model.calls[-1].tools == []
        tools.reconfigure(tools.Config(path=tmp_path, builtin=False, tools={}))
        await g.gateway.reload()
        assert [tool["name"] for tool in g.gateway.tools()] == ["greet"]
        await ask(g)
        assert model.calls[-1].input[-1]["output"] == "hello"


async def test_a_smaller_memory_of_failures_keeps_the_newest():
    async with gateway_in_memory({}) as g:
        recorder = plugin_of(g, "error_recorder")
        for name in "ab":
            g.gateway.report(GatewayError(name))
        recorder.reconfigure(recorder.Config(capacity=1))
        errors = (await g.http.get("/admin/agents/errors")).json()["errors"]
    assert [error["message"] for error in errors] == ["b"]
