"""Admin endpoints: their content, and access for admins only."""

import pytest

from gateway_core import Decision, Principal, hookimpl
from gateway_core.testing import gateway_in_memory

BROKEN = "import os\n\nboom = 1 / 0\n"
GOOD = "from agents import Agent\nagent = Agent(name='x')\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Good.py").write_text(GOOD)
    (tmp_path / "Bad.py").write_text(BROKEN)
    return tmp_path


class Guard:
    """Authenticates any key and allows every agent; the key `admin` is an admin."""

    def __init__(self, *_):
        pass

    @hookimpl
    async def authenticate(self, request):
        key = request.headers["authorization"].removeprefix("Bearer ")
        return Principal(key, admin=key == "admin")

    @hookimpl
    async def authorize(self, principal, entry):
        return Decision(True, "test")


@pytest.mark.parametrize(("key", "status"), [("admin", 200), ("ann", 403)])
@pytest.mark.parametrize("page", ["agents", "plugins", "reload"])
async def test_admin_endpoints_require_an_admin(folder, key, status, page):
    async with gateway_in_memory(folder=folder, plugins={"guard": Guard}, api_key=key) as g:
        method = g.http.post if page == "reload" else g.http.get
        assert (await method(f"/admin/{page}")).status_code == status


async def test_agents_are_listed_with_state_and_diagnosis(folder):
    async with gateway_in_memory(folder=folder) as g:
        (folder / "Good.py").write_text("syntax error")
        listed = (await g.http.post("/admin/reload")).json()
        assert listed == (await g.http.get("/admin/agents")).json()
        agents = {agent["id"]: agent for agent in listed["agents"]}
        assert (listed["generation"], agents["Good"]["state"], agents["Bad"]["state"]) == (2, "stale", "broken")
        assert agents["Good"]["diagnosis"]["kind"] == "syntax"
        assert agents["Bad"]["diagnosis"] == {
            "kind": "import",
            "message": "ZeroDivisionError: division by zero",
            "file": str(folder / "Bad.py"),
            "line": 3,
            "source_line": "boom = 1 / 0",
            "hint": None,
        }


async def test_a_broken_agent_can_answer_with_its_own_diagnosis(folder):
    async with gateway_in_memory(folder=folder, config={"catalog": {"show_broken": True}}) as g:
        assert {model.id async for model in await g.openai.models.list()} == {"Bad", "Good"}
        answer = await g.openai.chat.completions.create(model="Bad", messages=[{"role": "user", "content": "hi"}])
        assert "raises ZeroDivisionError (line 3)" in answer.choices[0].message.content
        (folder / "Bad.py").write_text(GOOD)
        catalog = await g.gateway.reload()
        assert catalog.broken == {}
        assert catalog.agents["Bad"].display_name == "Bad"


async def test_plugins_are_listed_with_their_facts(folder):
    async with gateway_in_memory(folder=folder) as g:
        plugins = {p["name"]: p for p in (await g.http.get("/admin/plugins")).json()["plugins"]}
        assert plugins["folder_discovery"]["facts"]["path"] == str(folder)
        assert plugins["entry_point_discovery"]["enabled"] is False


TEAM = '''
from agents import Agent, WebSearchTool, function_tool
from gateway_core import use_gateway_tool

@function_tool
def look() -> str:
    """Look."""
    return "seen"

helper = Agent(name="helper", tools=[WebSearchTool()], model="gpt-x")
agent = Agent(name="team", tools=[look, use_gateway_tool("calculate")], handoffs=[helper])
'''


async def test_an_agent_is_listed_with_its_components(folder):
    (folder / "labs").mkdir()
    (folder / "labs" / "Team.py").write_text(TEAM)
    async with gateway_in_memory(folder=folder, config={"agents": {"labs/Team": {"model": "gpt-y"}}}) as g:
        listed = {agent["id"]: agent for agent in (await g.http.get("/admin/agents")).json()["agents"]}["labs/Team"]
    assert listed["model"] == "gpt-y"
    assert [(agent["name"], agent["model"], agent["handoffs"]) for agent in listed["agents"]] == [
        ("team", None, ["helper"]),
        ("helper", "gpt-x", []),
    ]
    assert [(tool["name"], tool["source"]) for agent in listed["agents"] for tool in agent["tools"]] == [
        ("look", "sdk-native"),
        ("calculate", "gateway"),
        ("web_search", "hosted"),
    ]


async def test_runs_are_counted_and_the_last_error_has_its_request_id():
    async def run(text):
        if text == "fail":
            raise ValueError("canary")
        return "fine"

    async with gateway_in_memory({"X": run}) as g:
        for number, text in enumerate(("fine", "fail", "fine")):
            body = {"model": "X", "messages": [{"role": "user", "content": text}]}
            await g.http.post("/v1/chat/completions", json=body, headers={"x-request-id": f"request-{number}"})
        answer = await g.http.get("/admin/agents")
    [listed] = answer.json()["agents"]
    assert [listed[name] for name in ("runs", "active", "failed", "cancelled")] == [3, 0, 1, 0]
    assert (listed["last_error"]["request_id"], listed["last_error"]["code"]) == ("request-1", "run_failed")
    assert "canary" not in answer.text


async def test_one_agent_can_be_reloaded_without_changes(folder):
    (folder / "labs").mkdir()
    (folder / "labs" / "Other.py").write_text(GOOD)
    async with gateway_in_memory(folder=folder) as g:
        before = g.gateway.catalog.agents
        listed = (await g.http.post("/admin/agents/labs/other/reload")).json()
        after = g.gateway.catalog.agents
        assert after["labs/Other"] is not before["labs/Other"]
        assert after["Good"] is before["Good"]
        assert {agent["id"]: agent.get("generation") for agent in listed["agents"]} == {
            "Bad": None,
            "Good": 1,
            "labs/Other": 2,
        }
        assert (await g.http.post("/admin/agents/bad/reload")).status_code == 200
        missing = await g.http.post("/admin/agents/nope/reload")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
