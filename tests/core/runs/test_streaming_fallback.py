"""Streaming clients of an agent whose model does not stream receive its whole answers."""

import json

import pytest
from agents import Agent, Model, ModelProvider, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.testing import ScriptedModel
from openai.types.responses import ResponseOutputMessage, ResponseOutputRefusal, ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Summary

from gateway_core.testing import call, gateway_in_memory, script

HI = [{"role": "user", "content": "hi"}]


@function_tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


class Whole(Model):
    """A model that answers from a script, and counts the attempts to stream."""

    def __init__(self, *turns):
        self.script = turns[0] if isinstance(turns[0], ScriptedModel) else script(*turns)
        self.attempts = 0

    async def get_response(self, *given, **named) -> ModelResponse:
        answer = await self.script.get_response(*given, **named)
        answer.usage = Usage(requests=1, input_tokens=10, output_tokens=5, total_tokens=15)
        return answer

    def stream_response(self, *given, **named):
        self.attempts += 1
        raise NotImplementedError


class Generator(Whole):
    async def stream_response(self, *given, **named):
        self.attempts += 1
        raise NotImplementedError("no")
        yield


class Coroutine(Whole):
    async def stream_response(self, *given, **named):
        self.attempts += 1
        raise NotImplementedError


class Says(Whole):
    async def stream_response(self, *given, **named):
        self.attempts += 1
        raise RuntimeError("Streaming is not supported by this model.")
        yield


class Nothing(Whole):
    def stream_response(self, *given, **named):
        self.attempts += 1


class Empty(Whole):
    async def stream_response(self, *given, **named):
        self.attempts += 1
        return
        yield


class Abstract(Whole):
    def stream_response(self, *given, **named):
        self.attempts += 1
        return Model.stream_response(self, *given, **named)


class Unhashable(Whole):
    __hash__ = None


SHAPES = [Whole, Generator, Coroutine, Says, Nothing, Empty, Abstract]


async def chat(g, name="X"):
    stream = await g.openai.chat.completions.create(
        model=name, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return text, chunks[-1].usage


async def respond(g, name="X"):
    events = [event async for event in await g.openai.responses.create(model=name, input="hi", stream=True)]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text
    return text, events[-1].response.usage


@pytest.mark.parametrize("ask", [chat, respond])
@pytest.mark.parametrize("shape", SHAPES)
async def test_the_answer_and_its_usage_are_streamed(shape, ask):
    model = shape(call("add", a=1, b=2), "It is 3.")
    async with gateway_in_memory({"X": Agent(name="x", model=model, tools=[add])}) as g:
        text, usage = await ask(g)
    assert text == "It is 3."
    assert usage.total_tokens == 30
    assert model.attempts == 1  # the second turn does not try again


async def test_a_model_that_cannot_be_remembered_is_tried_at_each_turn():
    model = Unhashable(call("add", a=1, b=2), "It is 3.")
    async with gateway_in_memory({"X": Agent(name="x", model=model, tools=[add])}) as g:
        assert (await chat(g))[0] == "It is 3."
    assert model.attempts == 2


async def test_the_events_of_an_asynchronous_function_are_streamed():
    class Opens(Whole):
        async def stream_response(self, *given, **named):
            return self.script.stream_response(*given, **named)

    async with gateway_in_memory({"X": Agent(name="x", model=Opens("Hello."))}) as g:
        assert (await chat(g))[0] == "Hello."


async def test_handoffs_and_nested_agents_are_answered():
    target = Agent(name="target", model=Generator("From the target."))
    nested = Agent(name="nested", model=Whole("From the tool."))
    tool = nested.as_tool("ask_nested", "Ask.")
    first = Whole(call("ask_nested", input="x"), call("transfer_to_target"))
    agent = Agent(name="x", model=first, tools=[tool], handoffs=[target])
    async with gateway_in_memory({"X": agent}) as g:
        text, usage = await chat(g)
        assert text == "From the target."
        assert usage.total_tokens == 60


async def test_a_model_of_the_run_or_of_the_authors_provider_is_answered():
    class Provider(ModelProvider):
        def get_model(self, model_name):
            return Whole("From the provider.")

    async def workflow(text: str) -> str:
        agent = Agent(name="x")
        one = await Runner.run(agent, text, run_config=RunConfig(model=Whole("From the run.")))
        two = await Runner.run(agent, text, run_config=RunConfig(model_provider=Provider()))
        return f"{one.final_output} {two.final_output}"

    async with gateway_in_memory({"X": workflow}) as g:
        assert "From the run. From the provider." in (await chat(g))[0]


async def test_events_that_an_authors_code_reads_are_complete():
    kinds = []

    async def workflow(text: str) -> str:
        agent = Agent(name="x", model=Whole(call("add", a=1, b=2), "It is 3."), tools=[add])
        result = Runner.run_streamed(agent, text)
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                kinds.append(event.data.type.removeprefix("response."))
        return result.final_output

    async with gateway_in_memory({"X": workflow}) as g:
        assert (await chat(g))[0] == "It is 3."
    item = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    part = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    assert kinds == [
        *("created", *item, "completed"),
        *("created", "output_item.added", *part, "output_item.done", "completed"),
    ]


async def test_reasoning_and_refusals_are_streamed():
    reasoning = ResponseReasoningItem(id="r", type="reasoning", summary=[Summary(text="Hmm.", type="summary_text")])
    refusal = ResponseOutputMessage(
        id="m",
        type="message",
        role="assistant",
        status="completed",
        content=[ResponseOutputRefusal(type="refusal", refusal="No.")],
    )
    agent = Agent(name="x", model=Whole(ScriptedModel([[reasoning, refusal]])))
    async with gateway_in_memory({"X": agent}) as g:
        body = {"model": "X", "messages": HI, "stream": True}
        answer = await g.http.post("/v1/chat/completions", json=body, headers={"x-agent-gateway-client": "reasoning"})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    assert "".join(choice["delta"].get("reasoning_content") or "" for choice in choices) == "Hmm."
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "No."
    assert choices[-1]["finish_reason"] == "content_filter"


async def test_other_errors_and_errors_after_the_first_event_stay_errors():
    class Fails(Whole):
        async def stream_response(self, *given, **named):
            raise RuntimeError("the socket broke")
            yield

    class Stops(Whole):
        async def stream_response(self, *given, **named):
            async for event in self.script.stream_response(*given, **named):
                yield event
                raise NotImplementedError

    agents = {name: Agent(name=name, model=kind("x")) for name, kind in (("Fails", Fails), ("Stops", Stops))}
    async with gateway_in_memory(agents) as g:
        for name in agents:
            answer = await g.http.post("/v1/chat/completions", json={"model": name, "messages": HI, "stream": True})
            assert answer.status_code == 500
            assert answer.json()["error"]["message"].startswith("the agent failed")


async def test_a_model_that_fails_either_way_is_tried_again():
    class Broken(Whole):
        async def get_response(self, *given, **named):
            raise RuntimeError("down")

    model = Broken("x")
    async with gateway_in_memory({"X": Agent(name="x", model=model)}) as g:
        for _ in range(2):
            answer = await g.http.post("/v1/chat/completions", json={"model": "X", "messages": HI, "stream": True})
            assert answer.status_code == 500
    assert model.attempts == 2
