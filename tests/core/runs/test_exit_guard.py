"""An exception of any kind, raised anywhere in an agent's code, ends only its own run, and at once."""

import asyncio

import openai
import pytest
from agents import (
    Agent,
    AgentHooks,
    GuardrailFunctionOutput,
    InputGuardrail,
    OutputGuardrail,
    function_tool,
)

from gateway_core.testing import call, gateway_in_memory, script


class Custom(BaseException):
    """An author's own exception that is not an `Exception`."""


EXCEPTIONS = {
    "SystemExit": SystemExit(1),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "CancelledError": asyncio.CancelledError(),
    "group": BaseExceptionGroup("many", [SystemExit(1), KeyboardInterrupt()]),
    "GeneratorExit": GeneratorExit(),
    "RecursionError": RecursionError(),
    "MemoryError": MemoryError(),
    "StopIteration": StopIteration(),
    "StopAsyncIteration": StopAsyncIteration(),
    "Custom": Custom("canary"),
    "TimeoutError": TimeoutError(),
    "ValueError": ValueError("canary"),
}


def in_async_tool(error):
    @function_tool
    async def tool() -> str:
        """Fail."""
        raise error

    return Agent(name="x", tools=[tool])


def in_sync_tool(error):
    @function_tool
    def tool() -> str:
        """Fail."""
        raise error

    return Agent(name="x", tools=[tool])


def in_input_guardrail(error):
    async def check(context, agent, text):
        raise error

    return Agent(name="x", input_guardrails=[InputGuardrail(check)])


def in_output_guardrail(error):
    async def check(context, agent, output) -> GuardrailFunctionOutput:
        raise error

    return Agent(name="x", output_guardrails=[OutputGuardrail(check)])


def in_sync_guardrails(error):
    def check(context, agent, given) -> GuardrailFunctionOutput:
        raise error

    return Agent(name="x", input_guardrails=[InputGuardrail(check)], output_guardrails=[OutputGuardrail(check)])


def in_tool_without_failure_text(error):
    @function_tool(failure_error_function=None)
    def tool() -> str:
        """Fail."""
        raise error

    return Agent(name="x", tools=[tool])


def in_tool_hook(error):
    @function_tool
    def tool() -> str:
        """Succeed."""
        return ""

    class Hooks(AgentHooks):
        async def on_tool_start(self, context, agent, tool):
            raise error

    return Agent(name="x", tools=[tool], hooks=Hooks())


def in_instructions(error):
    def instructions(context, agent):
        raise error

    return Agent(name="x", instructions=instructions)


def in_hooks(error):
    class Hooks(AgentHooks):
        async def on_start(self, context, agent):
            raise error

    return Agent(name="x", hooks=Hooks())


def in_workflow(error):
    async def run_workflow(question: str):
        raise error

    return run_workflow


def in_thread_of_workflow(error):
    def fail():
        raise error

    async def run_workflow(question: str):
        await asyncio.to_thread(fail)

    return run_workflow


def in_generator_workflow(error):
    async def run_workflow(question: str):
        yield "begun"
        raise error

    return run_workflow


PLACES = [
    in_async_tool,
    in_sync_tool,
    in_input_guardrail,
    in_output_guardrail,
    in_sync_guardrails,
    in_tool_without_failure_text,
    in_tool_hook,
    in_instructions,
    in_hooks,
    in_workflow,
    in_thread_of_workflow,
    in_generator_workflow,
]


async def ask(g, model, *, stream):
    messages = [{"role": "user", "content": "hi"}]
    answer = await g.openai.chat.completions.create(model=model, messages=messages, stream=stream)
    if not stream:
        return answer.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", EXCEPTIONS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_only_its_own_run_ends(place, name, stream):
    proceed = asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Wait until the other run has ended."""
        await proceed.wait()
        return ""

    bystander = Agent(name="b", tools=[wait], model=script(call("wait"), "unharmed"))
    agents = {"Bad": place(EXCEPTIONS[name]), "Bystander": bystander}
    turns = [call("tool"), "it failed"] if "tool" in place.__name__ else ["hello"]
    async with gateway_in_memory(agents, model=script(*turns)) as g:
        other = asyncio.create_task(ask(g, "Bystander", stream=True))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(10):
                await ask(g, "Bad", stream=stream)
        except openai.APIError as error:
            assert "canary" not in str(error)  # noqa: PT017 - an error is optional; if raised, it must not leak
        proceed.set()
        assert await other == "unharmed"
        assert len(g.ended) == 2
        assert not any(outcome.cancelled for _, outcome in g.ended)
