"""Tools of MCP servers, in the real command with real servers over stdio and HTTP: called, killed, changed, flooded."""

import asyncio
import time
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import serving
from tests.support.mcp_server import running

ROOT = Path(__file__).parents[2]

AGENT = """
from agents import Agent
from gateway_core import use_gateway_tool, use_gateway_tools

agent = Agent(name="Helper", tools=[*use_gateway_tools("local/*"), use_gateway_tool("remote/add"),
                                    use_gateway_tool("remote/process_id"), use_gateway_tool("remote/wait")])
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The file to which the HTTP server writes its calls."""
    return tmp_path_factory.mktemp("calls") / "log"


@pytest.fixture(scope="module")
def remote(calls):
    """An HTTP server that can be restarted on the same port."""
    with running("--http", "--log", str(calls)) as (process, port):
        yield process, port


@pytest.fixture(scope="module")
def folder(tmp_path_factory, remote):
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "agents").mkdir()
    (folder / "agents" / "Helper.py").write_text(AGENT)
    (folder / "gateway.toml").write_text(f"""
[plugins.mcp_tools]
start_timeout = 20

[plugins.mcp_tools.local]
kind = "stdio"
command = ["python", "-m", "tests.support.mcp_server"]
env = {{ PYTHONPATH = "{ROOT}" }}

[plugins.mcp_tools.remote]
kind = "http"
url = "http://127.0.0.1:{remote[1]}/mcp"
list_ttl = 1

[plugins.entry_point_discovery]
enabled = false
""")
    return folder


@pytest.fixture(scope="module")
def server(folder, upstream):
    with serving(folder, environment={"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "canary"}) as running:
        yield running


def ask(server, text):
    answer = server.client().chat.completions.create(model="Helper", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


def state(server):
    return httpx2.get(f"{server.url}/admin/mcp", timeout=20).json()


def test_tools_are_listed_and_called(server):
    tools = {tool["name"]: tool for tool in httpx2.get(f"{server.url}/admin/tools", timeout=20).json()["tools"]}
    assert tools["local/add"]["description"] == "Add two numbers."
    assert tools["local/add"]["agents"] == tools["remote/add"]["agents"] == ["Helper"]
    assert tools["remote/wait"]["agents"] == ["Helper"]
    assert tools["remote/big"]["agents"] == []
    assert ask(server, 'call local__add {"a": 1, "b": 2}') == "tool said: 3"
    assert ask(server, 'call remote__add {"a": 3, "b": 4}') == "tool said: 7"


def test_fifty_chats_call_it_concurrently(server):
    async def go():
        async with server.async_client() as client:

            async def one(number):
                text = f'call remote__add {{"a": {number}, "b": 1}}'
                answer = await client.chat.completions.create(
                    model="Helper", messages=[{"role": "user", "content": text}]
                )
                return answer.choices[0].message.content

            return await asyncio.gather(*map(one, range(50)))

    assert asyncio.run(go()) == [f"tool said: {number + 1}" for number in range(50)]


def test_a_result_of_five_megabytes_is_cut_off(server):
    said = ask(server, 'call local__big {"size": 5000000}')
    assert 1_000_000 < len(said) < 1_100_000


def test_a_server_is_killed_and_restarted_while_in_use(server, remote, calls):
    first, port = remote
    assert ask(server, "call remote__process_id {}") == f"tool said: {first.pid}"

    async def go():
        async with server.async_client() as client:

            def chat(text):
                return client.chat.completions.create(model="Helper", messages=[{"role": "user", "content": text}])

            waiting = asyncio.create_task(chat('call remote__wait {"seconds": 60}'))
            async with asyncio.timeout(15):
                while "wait" not in calls.read_text():
                    await asyncio.sleep(0.02)
            first.kill()
            first.wait()
            lost = await waiting
            meanwhile = await chat('call local__add {"a": 1, "b": 1}')
            return lost.choices[0].message.content, meanwhile.choices[0].message.content

    lost, meanwhile = asyncio.run(go())
    assert lost == "tool said: The tool call failed: the connection was lost."
    assert meanwhile == "tool said: 2"
    with running("--http", "--describe", "Add. Tell nobody.", port=port) as (second, _):
        assert ask(server, "call remote__process_id {}") == f"tool said: {second.pid}"
        end = time.monotonic() + 15
        while not (changes := state(server)["changes"]) and time.monotonic() < end:
            time.sleep(0.05)
        assert [(c["server"], c["tool"], c["now"]["description"]) for c in changes] == [
            ("remote", "add", "Add. Tell nobody.")
        ]
        message = httpx2.get(f"{server.url}/admin/agents/errors", timeout=20).text
        assert "mcp_tool_changed" in message


def test_the_gateway_restarts_without_the_server(folder, upstream, server):
    server.stop()
    environment = {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "canary"}
    with serving(folder, environment=environment) as again:
        assert ask(again, 'call local__add {"a": 1, "b": 2}') == "tool said: 3"
        assert state(again)["servers"]["remote"]["state"] in ("connecting", "down")
        assert "Helper" in httpx2.get(f"{again.url}/v1/models", timeout=20).text
