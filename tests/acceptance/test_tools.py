"""Tools of agents and of the gateway, in the real command: policy, reload, and blocking tools."""

import asyncio

import httpx2
import pytest

from tests.acceptance.conftest import serving

AGENT = '''
import asyncio, os, time
from agents import Agent, function_tool
from gateway_core import use_gateway_tool

@function_tool
def forbidden(what: str) -> str:
    """Must not be called."""
    raise AssertionError

@function_tool
def block() -> str:
    """Wait for a file."""
    open(f"waiting-{time.monotonic_ns()}-{id(object())}", "w").close()
    while not os.path.exists("release"):
        time.sleep(0.01)
    return "released"

@function_tool
async def resolve(name: str) -> str:
    """Resolve a name."""
    return str(len(await asyncio.get_running_loop().getaddrinfo(name, 80)))

agent = Agent(name="inner", tools=[forbidden, block, resolve, use_gateway_tool("greet"), use_gateway_tool("calculate")])
'''

SETTINGS = """
[plugins.security.rules]
block_tools = ["forbidden"]

[plugins.entry_point_discovery]
enabled = false
"""

GREET = '''
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    (folder / "agents").mkdir()
    for name in ("One", "Two", "Three", "Four", "Five"):
        (folder / "agents" / f"{name}.py").write_text(AGENT)
    (folder / "tools").mkdir()
    (folder / "tools" / "hello.py").write_text(GREET)
    (folder / "gateway.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def server(folder, upstream):
    # By name: what the gateway connects to has to be resolved.
    base_url = upstream.base_url.replace("127.0.0.1", "localhost")
    with serving(folder, environment={"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "canary"}) as running:
        yield running


def ask(server, text, model="One"):
    answer = server.client().chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


def test_a_denied_tool_is_reported_to_the_model_and_the_operator(server):
    response = httpx2.post(
        f"{server.url}/v1/chat/completions",
        json={"model": "One", "messages": [{"role": "user", "content": 'call forbidden {"what": "canary argument"}'}]},
        headers={"x-request-id": "asked-for-it"},
        timeout=20,
    )
    said = response.json()["choices"][0]["message"]["content"]
    assert said == "tool said: The tool forbidden may not be called: blocked by block_tools."
    errors = httpx2.get(f"{server.url}/admin/agents/errors").json()["errors"]
    [error] = [e for e in errors if e["code"] == "tool_refused"]
    assert (error["stage"], error["agent_id"], error["request_ids"]) == ("tool", "One", ["asked-for-it"])
    assert error["principal_id"]
    assert error["source"] == "tool forbidden of inner"
    assert "canary argument" not in str(errors) + server.text


def test_a_gateway_tool_is_called_listed_and_reloaded(server, folder):
    assert ask(server, 'call greet {"name": "Ada"}') == "tool said: Hello, Ada!"
    assert ask(server, 'call calculate {"expression": "6 * 7"}') == "tool said: 42"
    tools = {tool["name"]: tool for tool in httpx2.get(f"{server.url}/admin/tools").json()["tools"]}
    assert tools["greet"]["agents"] == ["Five", "Four", "One", "Three", "Two"]
    assert tools["greet"]["source"] == "gateway"
    assert tools["greet"]["parameters"]["properties"] == {"name": {"title": "Name", "type": "string"}}
    (folder / "tools" / "hello.py").write_text(GREET.replace("Hello", "Welcome"))
    httpx2.post(f"{server.url}/admin/reload", timeout=20).raise_for_status()
    assert ask(server, 'call greet {"name": "Ada"}') == "tool said: Welcome, Ada!"


def test_with_all_tool_threads_blocked_names_resolve_and_other_requests_succeed(server, folder):
    async def go():
        client = server.async_client()

        async def one(text, model):
            messages = [{"role": "user", "content": text}]
            answer = await client.with_options(timeout=60).chat.completions.create(model=model, messages=messages)
            return answer.choices[0].message.content

        blocked = [asyncio.create_task(one("call block {}", ("One", "Two", "Three", "Four")[n % 4])) for n in range(64)]
        try:
            async with asyncio.timeout(30):
                while len(list(folder.glob("waiting-*"))) < 64:
                    await asyncio.sleep(0.05)
            assert await one("say: still here", "Five") == "still here"
            assert int((await one('call resolve {"name": "localhost"}', "Five")).removeprefix("tool said: ")) > 0
        finally:
            (folder / "release").touch()
        assert await asyncio.gather(*blocked) == ["tool said: released"] * 64
        await client.close()

    asyncio.run(go())
