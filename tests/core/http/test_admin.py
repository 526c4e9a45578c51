"""Operators ask a running gateway what it serves and what is broken, and nobody else gets through."""

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
    """Lets everybody use everything; `admin` is an admin."""

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
async def test_only_an_admin_gets_through(folder, key, status, page):
    async with gateway_in_memory(folder=folder, plugins={"guard": Guard}, api_key=key) as g:
        method = g.http.post if page == "reload" else g.http.get
        assert (await method(f"/admin/{page}")).status_code == status


async def test_agents_are_told_with_state_and_diagnosis(folder):
    async with gateway_in_memory(folder=folder) as g:
        (folder / "Good.py").write_text("syntax error")
        told = (await g.http.post("/admin/reload")).json()
        assert told == (await g.http.get("/admin/agents")).json()
        agents = {agent["id"]: agent for agent in told["agents"]}
        assert (told["generation"], agents["Good"]["state"], agents["Bad"]["state"]) == (2, "stale", "broken")
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
        assert "Bad.py:3: ZeroDivisionError" in answer.choices[0].message.content
        (folder / "Bad.py").write_text(GOOD)
        catalog = await g.gateway.reload()
        assert catalog.broken == {}
        assert catalog.agents["Bad"].display_name == "Bad"


async def test_plugins_are_told_with_their_facts(folder):
    async with gateway_in_memory(folder=folder) as g:
        plugins = {p["name"]: p for p in (await g.http.get("/admin/plugins")).json()["plugins"]}
        assert plugins["folder_discovery"]["facts"]["path"] == str(folder)
        assert plugins["entry_point_discovery"]["enabled"] is False
