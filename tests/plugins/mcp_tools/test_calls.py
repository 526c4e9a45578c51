"""Calls to real MCP servers over each transport: results, failures, limits, and servers that die."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from agents import Agent
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace, TracingTransport

from gateway_core import hookimpl, use_gateway_tool
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.mcp_server import running

ROOT = Path(__file__).parents[3]
STDIO = {"kind": "stdio", "command": [sys.executable, "-m", "tests.support.mcp_server"], "cwd": str(ROOT)}


@pytest.fixture(scope="module")
def port():
    with running() as (_, port):
        yield port


@pytest.fixture(scope="module")
def sse_port():
    with running("--sse") as (_, port):
        yield port


@pytest.fixture
def servers(request):
    """Return the settings of one server for each transport."""
    return {
        "http": lambda: {"kind": "http", "url": f"http://127.0.0.1:{request.getfixturevalue('port')}/mcp"},
        "sessions": lambda: {
            "kind": "http",
            "url": f"http://127.0.0.1:{request.getfixturevalue('port')}/mcp",
            "protocol": "legacy",
        },
        "sse": lambda: {"kind": "sse", "url": f"http://127.0.0.1:{request.getfixturevalue('sse_port')}/sse"},
        "stdio": lambda: STDIO,
    }


@asynccontextmanager
async def gateway(model, settings, *, tools=(), config=None) -> AsyncIterator:
    agent = Agent(name="caller", tools=[use_gateway_tool(f"server/{name}") for name in tools])
    plugins = {"mcp_tools": {"start_timeout": 25, "server": settings}, **(config or {})}
    async with gateway_in_memory({"Caller": agent}, model=model, config={"plugins": plugins}) as g:
        yield g


async def outputs(settings, *calls, config=None):
    """Return the outputs of some calls in one turn, as the model reads them."""
    model = script(list(calls), "done")
    names = dict.fromkeys(c.tool.removeprefix("server__") for c in calls)
    async with gateway(model, settings, tools=names, config=config) as g:
        await ask(g)
    return said(model, 1)


@pytest.mark.parametrize("way", ["http", "sessions", "sse", "stdio"])
async def test_a_tool_is_called_over_each_transport(way, servers):
    assert await outputs(servers[way](), call("server__add", a=2, b=3)) == ["5"]


async def test_results_are_converted_for_the_model(servers):
    text, picture, weather, structured = await outputs(
        servers["http"](),
        call("server__big", size=3),
        call("server__picture"),
        call("server__weather"),
        call("server__only_structured"),
    )
    assert text == "xxx"
    assert picture[0] == {"type": "input_text", "text": "one pixel:"}
    assert picture[1]["type"] == "input_image"
    assert picture[1]["image_url"].startswith("data:image/png;base64,iVBOR")
    assert '"degrees": 18' in weather
    assert structured == '{"degrees": 18}'


async def test_a_tool_error_is_reported_as_an_error(servers):
    events = []

    class Listener:
        def __init__(self, *_):
            pass

        @hookimpl
        def on_tool_end(self, call):
            events.append((call.tool.name, call.tool.source, call.tool.server, call.outcome))

    model = script(call("server__broken"), "done")
    agent = Agent(name="caller", tools=[use_gateway_tool("server/broken")])
    config = {"plugins": {"mcp_tools": {"start_timeout": 25, "server": servers["http"]()}}}
    async with gateway_in_memory({"C": agent}, model=model, config=config, plugins={"listener": Listener}) as g:
        await g.openai.chat.completions.create(model="C", messages=[{"role": "user", "content": "go"}])
    assert model.calls[1].input[-1]["output"] == "out of order"
    assert events == [("server/broken", "mcp", "server", "error")]


async def test_a_result_of_five_megabytes_is_cut_off_with_a_note(servers):
    config = {"tool_policy": {"enabled": False}}
    [text] = await outputs(servers["http"](), call("server__big", size=5_000_000), config=config)
    assert len(text) < 1024 * 1024 + 100
    assert text.endswith("x\n[cut off: 3,951,424 of 5,000,000 bytes]")


@pytest.mark.parametrize("way", ["http", "stdio"])
async def test_a_slow_tool_times_out_and_the_session_stays_open(way, servers):
    slow, quick = await outputs(
        {**servers[way](), "timeout": 3}, call("server__wait", seconds=20), call("server__add", a=1, b=1)
    )
    assert slow == "The tool's server did not respond within 3 seconds."
    assert quick == "2"


async def test_a_call_to_a_server_that_does_not_read_times_out():
    # The first one fills the pipe, and the second one is not even written.
    stuck = [call("server__add", a=1, b="x" * 1_000_000)] * 2
    model = script(call("server__process_id"), "done", stuck, "done")
    config = {"tool_policy": {"max_arguments": "2 MiB"}}
    async with gateway(model, {**STDIO, "timeout": 1}, tools=["process_id", "add"], config=config) as g:
        await ask(g)
        os.kill(int(said(model, 1)[0]), signal.SIGSTOP)
        await ask(g)
        os.kill(int(said(model, 1)[0]), signal.SIGCONT)
    assert said(model, 3)[-2:] == ["The tool's server did not respond within 1 seconds."] * 2


async def test_a_tool_may_take_longer_than_the_default_timeout_of_the_mcp_client(servers):
    assert await outputs(servers["http"](), call("server__wait", seconds=5.5)) == ["waited"]


@pytest.mark.parametrize("way", ["http", "sessions"])
async def test_elicitation_is_rejected_as_unsupported(way, servers):
    [message] = await outputs({**servers[way](), "timeout": 10}, call("server__ask_back"))
    assert "licitation" in message


@pytest.mark.parametrize("way", ["http", "sessions", "stdio"])
async def test_fifty_concurrent_calls(way, servers):
    calls = [call("server__add", a=n, b=1) for n in range(50)]
    assert await outputs(servers[way](), *calls) == [str(n + 1) for n in range(50)]


async def test_a_response_over_the_limit_fails_only_its_own_call(servers):
    with running("--http", "--json") as (_, port):
        settings = {"kind": "http", "url": f"http://127.0.0.1:{port}/mcp", "max_message": 100_000}
        big, small = await outputs(settings, call("server__big", size=200_000), call("server__wait", seconds=0.5))
    assert big == "The tool call failed: the response exceeds max_message."
    assert small == "waited"


@pytest.mark.parametrize("way", ["http", "stdio"])
async def test_an_unsafe_call_is_not_retried(way, tmp_path):
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        if way == "http":
            _, port = stack.enter_context(running("--http", "--log", str(log)))
            settings = {"kind": "http", "url": f"http://127.0.0.1:{port}/mcp", "connect_timeout": 2}
        else:
            settings = {**STDIO, "command": [*STDIO["command"], "--log", str(log)]}
        [message] = await outputs(settings, call("server__die"))
    assert message == "The tool call failed: the connection was lost."
    assert log.read_text() == "die\n"


async def test_a_safe_call_is_retried_after_the_server_exits(tmp_path):
    log = tmp_path / "log"
    settings = {**STDIO, "command": [*STDIO["command"], "--log", str(log)], "idempotent": ["die"]}
    [message] = await outputs(settings, call("server__die"))
    assert message == "The tool call failed: the connection was lost."
    assert log.read_text() == "die\ndie\n"


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_a_restarted_server_is_used_again(protocol):
    model = script(call("server__process_id"), "done", call("server__process_id"), "done")
    with running() as (first, port):
        settings = {"kind": "http", "url": f"http://127.0.0.1:{port}/mcp", "protocol": protocol}
        async with gateway(model, settings, tools=["process_id"]) as g:
            await ask(g)
            first.kill()
            first.wait()
            with running(port=port) as (second, _):
                await ask(g)
                facts = g.gateway.hooks.describe()["mcp_tools"]["servers"]["server"]
    assert said(model, 1) == [str(first.pid)]
    assert said(model, 3)[-1] == str(second.pid)
    assert facts["state"] == "up"


async def test_a_call_that_was_not_sent_is_made_when_the_server_is_back():
    model = script(call("server__add", a=1, b=1), "done")
    with running() as (first, port):
        settings = {"kind": "http", "url": f"http://127.0.0.1:{port}/mcp"}
        async with gateway(model, settings, tools=["add"]) as g:
            first.kill()
            first.wait()
            asking = asyncio.create_task(ask(g))
            while g.gateway.hooks.describe()["mcp_tools"]["servers"]["server"]["state"] == "up":
                await asyncio.sleep(0.005)
            with running(port=port):
                await asking
    assert said(model, 1) == ["2"]


@pytest.mark.parametrize(
    ("error", "unsent"), [(httpx2.ConnectError, True), (httpx2.ConnectTimeout, True), (httpx2.ReadError, False)]
)
async def test_a_lost_connection_fails_one_request_and_not_the_session(error, unsent):
    def lose(request):
        raise error("lost")

    trace = RequestTrace()
    REQUEST_TRACE.set(trace)
    transport = TracingTransport(100, 100, httpx2.MockTransport(lose))
    async with httpx2.AsyncClient(transport=transport) as client:
        assert (await client.post("https://mcp.example")).status_code == 502
        assert (trace.failed, trace.unsent) == (True, unsent)
        with pytest.raises(error):
            await client.get("https://mcp.example")


async def test_a_stdio_server_that_exited_is_restarted():
    model = script(call("server__process_id"), "done", call("server__process_id"), "done")
    async with gateway(model, STDIO, tools=["process_id"]) as g:
        await ask(g)
        [first] = said(model, 1)
        os.kill(int(first), signal.SIGKILL)
        await ask(g)
    assert said(model, 3)[-1] not in ("", first)
    assert said(model, 3)[-1].isdigit()


async def ask(g):
    answer = await g.openai.chat.completions.create(model="Caller", messages=[{"role": "user", "content": "go"}])
    assert answer.choices[0].message.content.endswith("done")


def said(model, turn):
    return [item["output"] for item in model.calls[turn].input if item.get("type") == "function_call_output"]
