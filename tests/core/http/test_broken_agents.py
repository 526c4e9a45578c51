"""Answers, admin pages and log lines about agents that could not be loaded."""

import io
import json
import logging

import pytest
from agents import Agent
from agents.mcp import MCPServerStdio

from gateway_core.testing import gateway_in_memory

MODULES = {
    "Path": "open('/srv/canary/settings.json')",
    "Relative": "open('canary-folder/settings.json')",
    "Variable": "import os\nos.environ['CANARY_KEY']",
    "Text": "raise RuntimeError('set CANARY_KEY in /srv/canary')",
    "Syntax": "def canary(:\n",
    "Nothing": "canary = 1",
    "Missing": "import canary_module_of_test",
    "Exits": "import sys\nsys.exit('see /srv/canary')",
    "Settings": "__gateway__ = {'tags': '/srv/canary'}\nfrom agents import Agent\nagent = Agent(name='x')",
}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "input": "hi"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "canary-root"
    root.mkdir()
    for name, text in MODULES.items():
        (root / f"{name}.py").write_text(text)
    (root / "Linked.py").symlink_to("/srv/canary/agent.py")
    return root


@pytest.mark.parametrize("show_broken", [False, True])
async def test_clients_see_neither_paths_nor_variables_nor_an_exceptions_text(folder, show_broken):
    async with gateway_in_memory(folder=folder, config={"catalog": {"show_broken": show_broken}}) as g:
        texts = [(await g.http.get("/v1/models")).text]
        for name in MODULES:
            assert name in g.gateway.catalog.broken
            for path in ("chat/completions", "responses"):
                for stream in (False, True):
                    answer = await g.http.post(f"/v1/{path}", json={"model": name, "stream": stream, **CHAT})
                    assert answer.status_code == (200 if show_broken else 503)
                    assert "agent-gateway check" in answer.text
                    texts.append(answer.text.replace("'canary_module_of_test'", ""))
            texts.append((await g.http.get(f"/v1/models/{name}")).text.replace("'canary_module_of_test'", ""))
    for text in texts:
        assert "canary" not in text.replace("'canary_module_of_test'", "").casefold()


async def test_clients_see_the_kind_of_the_failure(folder):
    async with gateway_in_memory(folder=folder) as g:
        for name, reason in {
            "Exits": "importing the module raises SystemExit (line 2)",
            "Settings": "its `__gateway__` is invalid",
            "Nothing": "the module exports nothing that can be served",
        }.items():
            answer = await g.http.post("/v1/chat/completions", json={"model": name, **CHAT})
            assert reason in answer.text


async def test_clients_do_not_see_the_command_of_an_agents_mcp_server():
    server = MCPServerStdio({"command": "/srv/canary/server", "args": ["canary"]})
    async with gateway_in_memory({"Greeter": Agent(name="greeter", mcp_servers=[server])}) as g:
        for path in ("chat/completions", "responses"):
            for stream in (False, True):
                answer = await g.http.post(f"/v1/{path}", json={"model": "Greeter", "stream": stream, **CHAT})
                assert "could not connect to an MCP server of the agent" in answer.text
                assert "canary" not in answer.text
        assert "/srv/canary/server" in (await g.http.get("/admin/agents/errors")).text


async def test_a_line_of_an_mcp_server_that_is_not_a_message_is_logged_without_its_text(caplog):
    code = "print('canary', flush=True); raise SystemExit('see /srv/canary')"
    server = MCPServerStdio({"command": "python", "args": ["-c", code]}, name="shop")
    async with gateway_in_memory({"Greeter": Agent(name="greeter", mcp_servers=[server])}):
        pass
    [record] = [record for record in caplog.records if record.name == "mcp.client.stdio"]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "must print everything else to its standard error" in record.getMessage()
    assert "canary" not in record.getMessage()


async def test_operators_see_them(folder):
    async with gateway_in_memory(folder=folder) as g:
        agents = {agent["id"]: agent for agent in (await g.http.get("/admin/agents")).json()["agents"]}
        assert "/srv/canary/settings.json" in agents["Path"]["diagnosis"]["message"]
        assert "CANARY_KEY" in agents["Variable"]["diagnosis"]["message"]


async def test_errors_have_the_id_of_the_agent(folder):
    async with gateway_in_memory(folder=folder) as g:
        await g.http.post("/v1/chat/completions", json={"model": "Syntax", **CHAT})
        errors = (await g.http.get("/admin/agents/errors")).json()["errors"]
    assert {error["agent_id"] for error in errors} == {*MODULES, "Linked"}
    assert {error["code"] for error in errors if error["agent_id"] == "Syntax"} == {"syntax", "agent_unavailable"}


async def test_log_lines_of_failures_have_fields_and_those_of_requests_the_size_of_the_body(folder):
    console = io.StringIO()
    handler = logging.StreamHandler(console)
    logging.getLogger().addHandler(handler)
    try:
        config = {"plugins": {"request_log": {"enabled": True, "format": "json"}}}
        async with gateway_in_memory(folder=folder, config=config) as g:
            refused = [
                await g.http.post("/v1/chat/completions", json={"model": "Syntax", **CHAT}),
                await g.http.post("/v1/chat/completions", json={"model": "none", **CHAT}),
                await g.http.get("/v1/models", headers={"host": "other.example"}),
                await g.http.get("/nowhere"),
            ]
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in console.getvalue().splitlines()]
    failures = {line["agent_id"]: line for line in lines if line.get("stage") == "load" and "code" in line}
    assert set(failures) == set(MODULES)
    for name, code in (("Syntax", "syntax"), ("Variable", "environment"), ("Nothing", "export")):
        assert (failures[name]["code"], failures[name]["module_path"]) == (code, str(folder / f"{name}.py"))
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [503, 404, 421, 404]
    assert [line["bytes"] for line in requests] == [len(answer.content) for answer in refused]
    assert requests[0]["agent_id"] == "Syntax"
