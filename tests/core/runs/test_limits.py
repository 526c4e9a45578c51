"""Limits of runs, streams and tool calls, and the count of orphaned tasks."""

import asyncio

import pytest
from agents import Agent, function_tool

from gateway_core.testing import call, gateway_in_memory, script

BODY = {"model": "X", "messages": [{"role": "user", "content": "go"}]}
CALLED: list[int] = []


@function_tool
def work() -> str:
    """Work."""
    CALLED.append(1)
    return "worked"


@pytest.fixture(autouse=True)
def _nothing_called():
    CALLED.clear()


async def ask(g, stream=False, **more):
    return await g.http.post("/v1/chat/completions", json={**BODY, "stream": stream, **more})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_calls_too_many_tools_ends(stream):
    agent = Agent(name="x", tools=[work], model=script(*[call("work")] * 9, "done"))
    config = {"runs": {"max_tool_calls": 3}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        answer = await ask(g, stream)
        assert answer.status_code == (200 if stream else 424)
        assert '"code":"max_tool_calls_exceeded"' in answer.text
        assert len(CALLED) == 3
        [(_, outcome)] = g.ended
        assert outcome.error.hint == "raise [runs] max_tool_calls"


async def test_tool_calls_of_agents_as_tools_count():
    inner = Agent(name="inner", tools=[work], model=script(*[call("work")] * 9, "done"))
    outer = Agent(
        name="outer",
        tools=[inner.as_tool("ask_inner", "Ask.")],
        model=script(call("ask_inner", input="a"), call("ask_inner", input="b"), "done"),
    )
    async with gateway_in_memory({"X": outer}, config={"runs": {"max_tool_calls": 3}}) as g:
        answer = await ask(g)
        assert answer.json()["error"]["code"] == "max_tool_calls_exceeded"
        assert len(CALLED) == 2  # the inner agent made the third call


async def test_a_run_may_use_all_its_tool_calls():
    agent = Agent(name="x", tools=[work], model=script(*[call("work")] * 3, "done"))
    async with gateway_in_memory({"X": agent}, config={"runs": {"max_tool_calls": 3}}) as g:
        assert (await ask(g)).json()["choices"][0]["message"]["content"] == "done"


class Waiting:
    """An agent whose tool waits."""

    def __init__(self):
        self.started, self.go = asyncio.Semaphore(0), asyncio.Event()

        @function_tool
        async def wait() -> str:
            """Wait."""
            self.started.release()
            await self.go.wait()
            return "waited"

        self.agent = Agent(name="x", tools=[wait], model=script(*[call("wait"), "done"] * 4))


async def test_streams_beyond_the_limit_are_rejected_with_retry_after():
    waiting, other = Waiting(), Waiting()
    agents = {"X": waiting.agent, "Y": other.agent}
    async with asyncio.timeout(20), gateway_in_memory(agents, config={"runs": {"max_streams": 1}}) as g:
        first = asyncio.create_task(ask(g, True))
        await waiting.started.acquire()
        refused = await ask(g, True)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["code"] == "too_many_streams"
        # Requests without streaming do not count.
        whole = asyncio.create_task(ask(g, model="Y"))
        await other.started.acquire()
        waiting.go.set()
        other.go.set()
        assert (await whole).status_code == (await first).status_code == 200
        assert (await ask(g, True)).status_code == 200


async def test_orphaned_tasks_are_counted_until_they_end():
    go = asyncio.Event()
    left: list[asyncio.Task] = []

    @function_tool
    async def leave() -> str:
        """Leave."""
        left.append(asyncio.create_task(go.wait()))
        return "left"

    agent = Agent(name="x", tools=[leave], model=script(*[call("leave"), "done"] * 2))
    async with gateway_in_memory({"X": agent}) as g:

        async def counts():
            agents = (await g.http.get("/admin/agents")).json()["agents"]
            measured = {each.name: each.value for each in g.gateway.measurements()}
            return [each["tasks_left"] for each in agents], measured["agent_gateway.tasks.left"]

        for _ in range(2):
            await ask(g)
        async with asyncio.timeout(10):
            # Tasks started by the SDK end without help.
            while await counts() != ([2], 2):
                await asyncio.sleep(0.01)
            go.set()
            await asyncio.gather(*left)
        assert await counts() == ([0], 0)


@pytest.mark.parametrize("page", ["chat/completions", "responses"])
async def test_too_many_client_tools_are_rejected(page):
    body = {**BODY, "input": "go", "tools": [{"type": "function"}] * 129}
    async with gateway_in_memory({"X": Agent(name="x", model=script("a"))}) as g:
        answer = await g.http.post(f"/v1/{page}", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")
        body["tools"].pop()
        assert (await g.http.post(f"/v1/{page}", json=body)).status_code == 200
