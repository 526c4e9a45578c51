"""Measures the overhead of the gateway per tool call, in microseconds.

    python benchmarks/tools.py

Uses a run of a real gateway with rules for tools and a plugin that implements `on_tool_end`. Calls the
guardrails of the tool (authorization, size of the arguments, size of the result) and the run hooks (start and end) as
the SDK calls them. For comparison, measures one whole run with a tool call. Prints the best round of each.
"""

import asyncio
import sys
import time
from typing import Any

from agents import Agent, Runner, function_tool
from agents.tool_context import ToolContext
from agents.tool_guardrails import ToolInputGuardrailData, ToolOutputGuardrailData

from gateway_core import hookimpl
from gateway_core.runs.run_scope import POSITION
from gateway_core.runs.runner import ScopeHooks
from gateway_core.testing import call, gateway_in_memory, script

CALLS = 300
ROUNDS = 20
LIMIT = 30.0
RULES = {"rules": {"block_tools": ["mail/*", "rm"]}, "namespaces": {"W": {"block_tools": ["files/*"]}}}


@function_tool
async def echo(text: str) -> str:
    """Return the text."""
    return text


class Listener:
    """A plugin that counts tool calls."""

    def __init__(self, *_: object) -> None:
        self.calls = 0

    @hookimpl
    def on_tool_end(self) -> None:
        """Count the call."""
        self.calls += 1


async def around(agent: Agent[Any]) -> float:
    """Return the overhead of `CALLS` calls in seconds, without the calls themselves."""
    position = POSITION.get()
    assert position is not None
    assert len(echo.tool_input_guardrails or ()) == 2
    assert len(echo.tool_output_guardrails or ()) == 1
    hooks = ScopeHooks(position.scope, None)
    context: Any = ToolContext(None, tool_name="echo", tool_call_id="c", tool_arguments='{"text": "x"}', agent=agent)
    began = time.perf_counter()
    for _ in range(CALLS):
        for guard in echo.tool_input_guardrails or ():
            await guard.run(ToolInputGuardrailData(context, agent))
        await hooks.on_tool_start(context, agent, echo)
        for guard in echo.tool_output_guardrails or ():
            await guard.run(ToolOutputGuardrailData(context, agent, "x"))
        await hooks.on_tool_end(context, agent, echo, "x")
    return time.perf_counter() - began


async def main() -> None:
    """Print the measurements; fail if the limit is exceeded."""
    overhead: list[float] = []
    whole: list[float] = []

    async def run_workflow(text: str) -> str:
        for _ in range(ROUNDS):
            agent = Agent(name="a", tools=[echo], model=script(call("echo", text="x"), "done"))
            began = time.perf_counter()
            await Runner.run(agent, text)
            whole.append(time.perf_counter() - began)
            overhead.append(await around(agent) / CALLS)
        return "done"

    config = {"plugins": {"security": RULES}}
    async with gateway_in_memory({"W": run_workflow}, config=config, plugins={"listener": Listener}) as g:
        await g.openai.chat.completions.create(model="W", messages=[{"role": "user", "content": "hi"}])
    best = min(overhead) * 1e6
    print(f"overhead per tool call:                    {best:8.1f} µs")
    print(f"for comparison, a run of two turns with one call: {min(whole) * 1e6:.0f} µs")
    if best > LIMIT:
        sys.exit(f"exceeds the limit of {LIMIT:g} µs")


if __name__ == "__main__":
    asyncio.run(main())
