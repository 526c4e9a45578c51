"""Plugins receive each model call with its timing, and the time to a run's first token."""

import asyncio

from agents import Agent, Runner, function_tool
from agents.tracing import TracingProcessor
from agents.tracing.setup import get_trace_provider

from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import Measurement, ModelCall, Usage
from tests.support.upstream import FakeUpstream

BODY = {"model": "X", "messages": [{"role": "user", "content": "hi"}]}


def recorder() -> tuple[type, list[ModelCall]]:
    calls: list[ModelCall] = []

    class Recorder:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def on_model_end(self, call: ModelCall) -> None:
            calls.append(call)

    return Recorder, calls


def tables(upstream: FakeUpstream, **more: object) -> dict:
    return {
        "plugins": {"upstreams": {"up": {"base_url": upstream.base_url, "default_model": "m", "max_retries": 0}}},
        **more,
    }


async def test_each_turn_is_a_call_with_its_own_tokens():
    def look() -> str:
        """Look."""
        return "seen"

    plugin, calls = recorder()
    with FakeUpstream() as upstream:
        agent = Agent(name="Named", model="special", tools=[function_tool(look)])
        async with gateway_in_memory({"X": agent}, plugins={"l": plugin}, config=tables(upstream)) as g:
            body = {"model": "X", "messages": [{"role": "user", "content": "call look {}"}]}
            await g.openai.chat.completions.create(**body)
            stream = await g.openai.chat.completions.create(**body, stream=True)
            async for _ in stream:
                pass
            outcomes = [outcome for _, outcome in g.ended]
    assert [(c.agent_name, c.model, c.outcome) for c in calls] == [("Named", "special", "ok")] * 4
    assert sum((c.usage for c in calls[:2]), Usage()) == outcomes[0].usage
    assert [c.first_chunk_seconds is None for c in calls] == [True, True, False, False]
    assert all(0 < c.first_chunk_seconds <= c.seconds for c in calls[2:])
    assert calls[0].run.request_id != calls[2].run.request_id
    assert all(outcome.first_token_seconds for outcome in outcomes)


async def test_the_operators_model_is_the_reported_one():
    plugin, calls = recorder()
    with FakeUpstream() as upstream:
        config = tables(upstream, agents={"X": {"model": "chosen"}})
        agents = {"X": Agent(name="x", model="special"), "Y": Agent(name="y")}
        async with gateway_in_memory(agents, plugins={"l": plugin}, config=config) as g:
            for name in agents:
                await g.openai.chat.completions.create(**{**BODY, "model": name})
    assert [c.model for c in calls] == ["chosen", None]


async def test_a_failed_call_is_an_error_and_an_aborted_one_is_cancelled():
    plugin, calls = recorder()
    with FakeUpstream() as upstream:
        async with gateway_in_memory({"X": Agent(name="x")}, plugins={"l": plugin}, config=tables(upstream)) as g:
            failing = {**BODY, "messages": [{"role": "user", "content": "fail 500"}]}
            assert (await g.http.post("/v1/chat/completions", json=failing)).status_code == 502
            endless = {**BODY, "messages": [{"role": "user", "content": "hang-after 1"}], "stream": True}
            async with g.http.stream("POST", "/v1/chat/completions", json=endless) as answer:
                await anext(answer.aiter_bytes())
            [_, (_, left)] = g.ended
    assert [c.outcome for c in calls] == ["error", "cancelled"]
    assert (left.cancelled, left.client_left) == (True, True)


async def test_calls_of_runs_that_an_authors_code_streams_are_reported():
    async def workflow(text: str) -> str:
        result = Runner.run_streamed(Agent(name="inner"), text)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)

    plugin, calls = recorder()
    with FakeUpstream() as upstream:
        async with gateway_in_memory({"X": workflow}, plugins={"l": plugin}, config=tables(upstream)) as g:
            await g.openai.chat.completions.create(**BODY)
            failing = {**BODY, "messages": [{"role": "user", "content": "fail 500"}]}
            await g.http.post("/v1/chat/completions", json=failing)
    assert [(c.agent_name, c.outcome) for c in calls] == [("inner", "ok"), ("inner", "cancelled")]


async def test_keep_alive_comments_are_counted():
    wait = asyncio.Event()

    async def slow() -> str:
        """Wait."""
        await wait.wait()
        return "done"

    agent = Agent(name="x", tools=[function_tool(slow)], model=script(["a", call("slow")], "b"))
    async with gateway_in_memory({"X": agent}, config={"http": {"sse_keep_alive": 0.01}}) as g:
        seen = b""
        async with g.http.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as answer:
            async for piece in answer.aiter_bytes():
                seen += piece
                if seen.count(b": keep-alive") == 3:
                    wait.set()
        [(_, outcome)] = g.ended
    assert outcome.keep_alives == seen.count(b": keep-alive") >= 3
    assert not outcome.client_left


async def test_measurements_of_the_core_and_of_plugins_are_combined():
    class Measuring:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def measurements(self) -> list[Measurement]:
            return [Measurement("mine", 1.0, "1", "Mine.")]

    class Failing(Measuring):
        @hookimpl
        def measurements(self) -> list[Measurement]:
            raise ValueError

    async with gateway_in_memory({}, plugins={"failing": Failing, "measuring": Measuring}) as g:
        found = {m.name: m.value for m in g.gateway.measurements()}
    assert found["mine"] == 1.0
    assert found["agent_gateway.runs.active"] == 0


class Processor(TracingProcessor):
    def __init__(self) -> None:
        self.names: list[str] = []

    def on_trace_start(self, trace): ...
    def on_trace_end(self, trace): ...
    def on_span_start(self, span): ...
    def shutdown(self): ...
    def force_flush(self): ...
    def on_span_end(self, span):
        self.names.append(type(span.span_data).__name__)


def tracing(processor: Processor) -> type:
    class Tracing:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def trace_processors(self):
            return [processor]

    return Tracing


async def test_a_second_gateway_keeps_the_first_ones_trace_processors():
    one, two = Processor(), Processor()
    agents = {"X": Agent(name="x", model=script("a"))}
    async with gateway_in_memory(agents, plugins={"t": tracing(one)}) as g:
        async with gateway_in_memory({}, plugins={"t": tracing(two)}):
            pass
        await g.openai.chat.completions.create(**BODY)
    assert "AgentSpanData" in one.names
    assert not two.names
    assert not get_trace_provider()._multi_processor._processors


async def test_removal_of_trace_processors_by_a_module_is_reverted(tmp_path):
    (tmp_path / "X.py").write_text(
        "from agents import Agent, set_trace_processors\nset_trace_processors([])\nagent = Agent(name='rude')\n"
    )
    processor = Processor()
    async with gateway_in_memory(folder=tmp_path, model=script("a"), plugins={"t": tracing(processor)}) as g:
        assert "processors" in g.gateway.catalog.agents["X"].warnings[0]
        await g.openai.chat.completions.create(**BODY)
    assert "AgentSpanData" in processor.names
