"""An mcp-gateway, as a double before a real MCP server: discovery, identities, sessions that are lost, refusals."""

import asyncio

import pytest
from agents import Agent

from gateway_core import Principal, hookimpl, use_gateway_tool
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.mcp_gateway import METADATA, McpGatewayDouble
from tests.support.mcp_server import running

DEV = {"X-Dev-UserId": "{principal}", "X-Dev-Roles": "mcp.dev"}


@pytest.fixture(scope="module")
def port():
    with running("--http", "--json") as (_, port):
        yield port


def caller(*tools):
    return {"Caller": Agent(name="caller", tools=[use_gateway_tool(name) for name in tools])}


def settings(double, **more):
    return {"plugins": {"mcp_tools": {"start_timeout": 25, "corp": {"kind": "mcp-gateway", "url": double.url, **more}}}}


async def ask(g, **headers):
    answer = await g.openai.chat.completions.create(
        model="Caller", messages=[{"role": "user", "content": "go"}], extra_headers=headers
    )
    assert answer.choices[0].message.content == "done"


def said(model, turn=1):
    return [item["output"] for item in model.calls[turn].input if item.get("type") == "function_call_output"]


async def test_the_tools_of_adapters_and_of_the_router_are_discovered_and_called(port):
    model = script([call("corp__math__add", a=1, b=2), call("corp__add", a=3, b=4)], "done")
    with McpGatewayDouble({"math": port, "": port}) as double:
        async with gateway_in_memory(caller("corp/math/add", "corp/add"), model=model, config=settings(double)) as g:
            await ask(g)
            facts = g.gateway.hooks.describe()["mcp_tools"]["servers"]
            [tool] = [t for t in g.gateway.tools() if t["name"] == "corp/math/add"]
        assert said(model) == ["3", "7"]
        assert facts["corp/*"]["adapters"] == {"math": {"readyReplicas": 1, "replicaStatus": "Healthy"}}
        assert facts["corp/*"]["tools"] == ["add"]
        assert facts["corp/math"]["state"] == facts["corp"]["state"] == "up"
        assert (tool["source"], tool["server"], tool["agents"]) == ("mcp", "corp/math", ["Caller"])


async def test_only_configured_adapters_are_used(port):
    with McpGatewayDouble({"math": port, "other": port, "": port}) as double:
        config = settings(double, adapters=["math"])
        async with gateway_in_memory({}, model=script(), config=config) as g:
            assert set(g.gateway.hooks.describe()["mcp_tools"]["servers"]) == {"corp", "corp/math", "corp/*"}


async def test_only_configured_tools_are_offered(port):
    with McpGatewayDouble({"math": port, "other": port, "": port}) as double:
        config = settings(double, tools=["math/add"])
        async with gateway_in_memory(caller("corp/math/add"), model=script("done"), config=config) as g:
            assert [t["name"] for t in g.gateway.tools() if t["source"] == "mcp"] == ["corp/math/add"]


async def test_a_lost_session_is_replaced_and_only_safe_calls_are_retried(port):
    turns = [call("corp__math__process_id"), "done", call("corp__math__add", a=1, b=1), "done"]
    model = script(*turns, call("corp__math__add", a=1, b=1), "done")
    with McpGatewayDouble({"math": port}) as double:
        config = settings(double, router=False)
        async with gateway_in_memory(caller("corp/math/process_id", "corp/math/add"), model=model, config=config) as g:
            double.forget_sessions()
            await ask(g)
            assert said(model, 1)[-1].isdigit()
            double.forget_sessions()
            await ask(g)
            assert said(model, 3)[-1] == "The tool call failed: the server returned status 500."
            await ask(g)
            assert said(model, 5)[-1] == "2"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_that_returns_500_in_a_session_is_made_once(port, when):
    model = script(call("corp__math__add", a=1, b=1), "done")
    with McpGatewayDouble({"math": port}) as double:
        async with gateway_in_memory(caller("corp/math/add"), model=model, config=settings(double, router=False)) as g:
            double.fail_next = when
            double.users.clear()
            await ask(g)
        assert [method for _, method in double.users].count("tools/call") == 1


async def test_each_principal_has_its_own_session(port):
    class Names:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authenticate(self, request):
            return Principal(request.headers["x-name"])

    turns = [call("corp__math__add", a=1, b=1), "done"] * 3
    with McpGatewayDouble({"math": port}) as double:
        config = settings(double, router=False, identity="principal", identity_headers=DEV)
        agents = caller("corp/math/add")
        async with gateway_in_memory(agents, model=script(*turns), config=config, plugins={"names": Names}) as g:
            for name in ("ada", "bob", "ada"):
                await ask(g, **{"x-name": name})
            facts = g.gateway.hooks.describe()["mcp_tools"]["servers"]["corp/math"]
        called = [user for user, method in double.users if method == "tools/call"]
        begun = [user for user, method in double.users if method == "initialize"]
    assert called == ["ada", "bob", "ada"]
    assert sorted(begun) == ["ada", "agent-gateway", "bob"]
    assert facts["principals"] == 2


async def test_a_missing_credential_is_reported_with_the_resource_metadata_url(port):
    with McpGatewayDouble({"math": port}, token="right") as double:
        config = settings(double, adapters=["math"], router=False)
        config["plugins"]["mcp_tools"]["start_timeout"] = 0.3
        async with gateway_in_memory({}, model=script(), config=config) as g, asyncio.timeout(20):
            facts = {}
            while not facts or not all(facts[name]["last_error"] for name in ("corp/*", "corp/math")):
                await asyncio.sleep(0.01)
                facts = (await g.http.get("/admin/mcp")).json()["servers"]
    message = f"unauthorized (401), no valid credential is configured; resource metadata: {METADATA}"
    assert facts["corp/*"]["last_error"] == message
    assert facts["corp/math"]["last_error"] == message


async def test_a_bearer_token_authenticates_all_requests(port, tmp_path):
    (tmp_path / "token").write_text("right\n")
    model = script(call("corp__math__add", a=1, b=2), "done")
    with McpGatewayDouble({"math": port, "": port}, token="right") as double:
        config = settings(double, token_file=str(tmp_path / "token"))
        async with gateway_in_memory(caller("corp/math/add"), model=model, config=config) as g:
            await ask(g)
    assert said(model) == ["3"]


async def test_removed_adapters_are_dropped_and_new_ones_discovered(port):
    with McpGatewayDouble({"math": port}) as double:
        config = settings(double, router=False, list_ttl=0.1)
        async with gateway_in_memory({}, model=script(), config=config) as g:
            assert "corp/math/add" in [t["name"] for t in g.gateway.tools()]
            double.behind = {"sums": port}
            while "corp/sums/add" not in (names := [t["name"] for t in g.gateway.tools()]) or "corp/math/add" in names:
                await asyncio.sleep(0.02)


async def test_an_adapter_without_a_pod_is_reported(port):
    with McpGatewayDouble({"math": 0}) as double:
        config = settings(double, router=False)
        config["plugins"]["mcp_tools"]["start_timeout"] = 0.3
        async with gateway_in_memory({}, model=script(), config=config) as g:
            facts = g.gateway.hooks.describe()["mcp_tools"]["servers"]["corp/math"]
    assert facts["last_error"] == "the server returned status 503"
