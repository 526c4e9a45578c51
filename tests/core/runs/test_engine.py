"""Runs with a gateway in memory and a scripted model: events, outcomes and cleanup."""

import asyncio

import openai
import pytest
from agents import Agent, RunContextWrapper, RunHooks, Runner, function_tool
from agents.agent import StopAtTools
from pydantic import BaseModel

from gateway_core.runs.event_channel import EventChannel
from gateway_core.small_queue import SmallQueue
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.upstream import FakeUpstream, Fault, Reply


@function_tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def ask(g, text="hi", *, stream, model="X", **options):
    messages = [{"role": "user", "content": text}]
    got = await g.openai.chat.completions.create(model=model, messages=messages, stream=stream, **options)
    if not stream:
        return got.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in got if chunk.choices])


BOTH = pytest.mark.parametrize("stream", [False, True])


@BOTH
async def test_texts_of_several_turns_are_paragraphs(stream):
    agent = Agent(name="x", tools=[add])
    model = script(["Let me see.", call("add", a=1, b=2)], "It is 3.")
    async with gateway_in_memory({"X": agent}, model=model) as g:
        assert await ask(g, stream=stream) == "Let me see.\n\nIt is 3."


@BOTH
async def test_an_output_without_a_message_is_sent(stream):
    agent = Agent(name="x", tools=[add], tool_use_behavior=StopAtTools(stop_at_tool_names=["add"]))
    async with gateway_in_memory({"X": agent}, model=script(call("add", a=1, b=2))) as g:
        assert await ask(g, stream=stream) == "3"


@BOTH
async def test_structured_output_is_json(stream):
    class City(BaseModel):
        name: str

    agent = Agent(name="x", output_type=City)
    async with gateway_in_memory({"X": agent}, model=script('{"name": "Paris"}')) as g:
        assert City.model_validate_json(await ask(g, stream=stream)).name == "Paris"


@BOTH
async def test_an_approval_inside_a_workflow_is_an_error(stream):
    called = []

    @function_tool(needs_approval=True)
    def delete() -> str:
        """Delete everything."""
        called.append(1)
        return ""

    agent = Agent(name="x", tools=[delete])

    async def workflow(text: str) -> str:
        return (await Runner.run(agent, text)).final_output

    async with gateway_in_memory({"X": workflow}, model=script(call("delete"), "never")) as g:
        with pytest.raises(openai.InternalServerError, match="a call of delete requires approval") as caught:
            await ask(g, stream=stream)
        assert caught.value.code == "needs_approval"
        assert called == []


@BOTH
async def test_a_run_that_takes_too_long_ends(stream):
    @function_tool
    async def wait() -> str:
        """Wait forever."""
        await asyncio.Event().wait()
        return ""

    agent = Agent(name="x", tools=[wait])
    config = {"runs": {"timeout": "200ms"}}
    async with gateway_in_memory({"X": agent}, model=script(call("wait")), config=config) as g:
        with pytest.raises(openai.APIError) as caught:
            await ask(g, stream=stream)
        assert caught.value.code == "run_timeout"
        assert g.ended[0][1].error.code == "run_timeout"


async def test_the_authors_hooks_are_called():
    seen = []

    class Hooks(RunHooks):
        async def on_tool_end(self, context, agent, tool, result):
            seen.append((tool.name, result))

        async def on_llm_end(self, context, agent, response):
            seen.append("llm")

    async def run_workflow(question: str):
        return (await Runner.run(Agent(name="x", tools=[add]), question, hooks=Hooks())).final_output

    async with gateway_in_memory({"X": run_workflow}, model=script(call("add", a=1, b=2), "3")) as g:
        assert await ask(g, stream=True) == "3"
    assert seen == ["llm", ("add", 3), "llm"]


async def test_a_synchronous_tool_may_run_an_agent():
    @function_tool
    def helper(question: str) -> str:
        """Ask another agent, synchronously."""
        # Outside the gateway, the SDK would create a loop for this thread and not close it.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return str(Runner.run_sync(Agent(name="inner"), question).final_output)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    agent = Agent(name="x", tools=[helper])
    async with gateway_in_memory(
        {"X": agent}, model=script(*[call("helper", question="q"), "inside", "outside"] * 2)
    ) as g:
        assert await ask(g, stream=False) == "outside"
        assert await ask(g, stream=True) == "outside"


async def test_streamed_runs_have_small_queues():
    queues = []

    @function_tool
    async def helper(question: str) -> str:
        """Ask another agent."""
        result = Runner.run_streamed(Agent(name="inner"), question)
        queues.extend([result._event_queue, result._input_guardrail_queue])
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    agent = Agent(name="x", tools=[helper])
    async with gateway_in_memory({"X": agent}, model=script(call("helper", question="q"), "inside", "outside")) as g:
        assert await ask(g, stream=True) == "outside"
    assert [type(queue) for queue in queues] == [SmallQueue, SmallQueue]


async def test_the_context_is_the_run_context_unless_the_author_has_one():
    seen = []

    @function_tool
    def look(context: RunContextWrapper) -> str:
        """Look."""
        seen.append(context.context)
        return ""

    agent = Agent(name="x", tools=[look])
    async with gateway_in_memory({"X": agent}, model=script(call("look"), "done")) as g:
        await ask(g, stream=True, extra_headers={"x-request-id": "mine"})
    assert (seen[0].request_id, seen[0].agent_id) == ("mine", "X")


async def test_two_gateways_run_in_one_process():
    agent = Agent(name="x")
    async with (
        gateway_in_memory({"X": agent}, model=script("one")) as one,
        gateway_in_memory({"X": agent}, model=script("two")) as two,
    ):
        assert await asyncio.gather(ask(one, stream=True), ask(two, stream=True)) == ["one", "two"]


async def test_an_agents_settings_take_precedence_and_a_reload_does_not_affect_active_runs(tmp_path):
    (tmp_path / "X.py").write_text("from agents import Agent\nagent = Agent(name='old')\n")
    async with gateway_in_memory(folder=tmp_path, model=script("a", "b")) as g:
        held = g.gateway.catalog.agents["X"]
        stream = await g.openai.chat.completions.create(
            model="X", messages=[{"role": "user", "content": "x"}], stream=True
        )
        (tmp_path / "X.py").write_text("from agents import Agent\nagent = Agent(name='new')\n")
        await g.gateway.reload()
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text == "a"
        assert g.gateway.catalog.agents["X"] is not held


async def test_a_channel_delivers_in_order_and_in_batches():
    channel: EventChannel[int] = EventChannel()
    channel.put(1)
    channel.put(2)
    assert await channel.take() == [1, 2]
    waiting = asyncio.create_task(channel.take())
    await asyncio.sleep(0)
    channel.put(3)
    assert await waiting == [3]
    assert await channel.take(timeout=0.001) == []
    left = asyncio.create_task(channel.take())
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.wait([left])
    channel.put(4)
    assert await channel.take() == [4]


@BOTH
async def test_an_upstream_that_disconnects_is_not_a_timeout(stream):
    with FakeUpstream(lambda request: Reply([Fault.CUT])) as upstream:
        settings = {"base_url": upstream.base_url, "max_retries": 0}
        config = {"plugins": {"upstreams": {"fake": settings}}}
        async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
            with pytest.raises(openai.InternalServerError) as caught:
                await ask(g, stream=stream)
            assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")


async def test_a_missing_api_key_is_reported(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    off = {name: {"enabled": False} for name in ("upstreams", "offline_model")}
    async with gateway_in_memory({"X": Agent(name="x")}, config={"plugins": off}) as g:
        with pytest.raises(openai.APIStatusError, match="no API key for the upstream is configured") as caught:
            await ask(g, stream=False)
        assert caught.value.code == "upstream_auth_failed"
        assert "OPENAI_API_KEY" in g.ended[0][1].error.hint
