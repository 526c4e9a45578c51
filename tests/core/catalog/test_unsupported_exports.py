"""Exports that look like agents, but need another runtime, are refused with a hint, however they are exported."""

import types

import pytest
from agents import Agent, function_tool
from agents.realtime import RealtimeAgent

from gateway_core.testing import gateway_in_memory

VOICE = "from agents.realtime import RealtimeAgent\n"
# As the decorator of `temporalio.workflow` marks a class.
FLOW = (
    "class Hello:\n    async def run(self, prompt): ...\nsetattr(Hello, '__temporal_workflow_definition', object())\n"
)


def flow() -> type:
    cls = type("Hello", (), {})
    setattr(cls, "__temporal_workflow_definition", object())
    return cls


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (f"{VOICE}agent = RealtimeAgent(name='x')", "`agent` is a voice agent", "RealtimeRunner"),
        (f"{VOICE}assistant = RealtimeAgent(name='x')", "`assistant` is a voice agent", "RealtimeRunner"),
        (
            f"{VOICE}def build_agent():\n    return RealtimeAgent(name='x')",
            "the result of build_agent() is a voice agent",
            "RealtimeRunner",
        ),
        (
            f"{VOICE}from agents import Agent\nhelper = Agent(name='h')\nagent = RealtimeAgent(name='x')",
            "`agent` is a voice agent",
            "RealtimeRunner",
        ),
        (FLOW, "`Hello` is a Temporal workflow", "function tool that starts the workflow"),
        (
            f"{FLOW}async def build_agent():\n    return Hello()",
            "the result of build_agent() is a Temporal workflow",
            "function tool that starts the workflow",
        ),
    ],
)
async def test_modules(tmp_path, text, message, hint):
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "agent.py").write_text(text)
    async with gateway_in_memory(folder=tmp_path) as g:
        error = g.gateway.catalog.broken["X"].error
    assert error.code == "export"
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        (RealtimeAgent(name="x"), "the exported object is a voice agent"),
        (lambda: RealtimeAgent(name="x"), "is a voice agent"),
        (flow(), "the exported object is a Temporal workflow"),
        (flow()(), "the exported object is a Temporal workflow"),
    ],
)
async def test_objects_of_entry_points(exported, message):
    async with gateway_in_memory({"X": exported}) as g:
        assert message in g.gateway.catalog.broken["X"].error.message


async def test_an_agent_beside_a_workflow_is_served(tmp_path):
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "agent.py").write_text(f"{FLOW}from agents import Agent\nagent = Agent(name='x')")
    async with gateway_in_memory(folder=tmp_path) as g:
        assert "X" in g.gateway.catalog.agents


async def test_an_agent_with_a_part_that_needs_a_workflow_is_refused():
    async def weather(city: str) -> str:
        """Get the weather."""
        return city

    tool = function_tool(weather)
    # As in `activity_as_tool`: the function that executes the tool is defined in the package.
    namespace: dict = {"__name__": "temporalio.contrib.openai_agents.workflow"}
    exec("async def run_activity(context, arguments): ...", namespace)
    tool.on_invoke_tool = namespace["run_activity"]
    server = type("Server", (), {"__module__": namespace["__name__"], "name": "files"})()
    agents = {
        "Tool": Agent(name="x", tools=[tool]),
        "Handoff": Agent(name="x", handoffs=[Agent(name="y", tools=[tool])]),
    }
    async with gateway_in_memory(agents) as g:
        errors = [each.error for each in g.gateway.catalog.broken.values()]
    assert [error.code for error in errors] == ["export", "export"]
    assert all("has the tool 'weather' of temporalio" in error.message for error in errors)
    from gateway_core.catalog.unsupported_exports import part_of_temporal

    agent = types.SimpleNamespace(tools=[], mcp_servers=[server])
    assert "has the MCP server 'files' of temporalio" in part_of_temporal(agent)[0]


async def test_a_voice_agent_is_explained_if_the_package_for_its_session_is_missing(tmp_path, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith(("websockets", "agents.realtime"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "agent.py").write_text(f"{VOICE}agent = RealtimeAgent(name='x')")
    async with gateway_in_memory(folder=tmp_path) as g:
        error = g.gateway.catalog.broken["X"].error
    assert "voice agent" in error.message
    assert "RealtimeRunner" in error.hint
