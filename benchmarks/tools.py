"""What governing costs a tool call: microseconds of everything that the gateway puts around it.

    python benchmarks/tools.py

In a run of a real gateway with `tool_policy` and a plugin that listens: the guardrails that are on the tool (is it
allowed? are the arguments too long? is the result?) and the run hooks (when did it begin, how did it end?), called as
the SDK calls them. Beside it, one whole tool call of the SDK, to compare. The best round of each counts.
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
POLICY = {"deny": ["mail/*", "rm"], "agents": {"W": {"deny": ["files/*"]}}}


@function_tool
async def echo(text: str) -> str:
    """Says it again."""
    return text


class Listener:
    """A plugin that counts."""

    def __init__(self, *_: object) -> None:
        self.heard = 0

    @hookimpl
    def on_tool_end(self) -> None:
        """One more."""
        self.heard += 1


async def around(agent: Agent[Any]) -> float:
    """Seconds for what is put around a call, without the call."""
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
    """Print the figures; fail over the limit."""
    governing: list[float] = []
    whole: list[float] = []

    async def run_workflow(text: str) -> str:
        for _ in range(ROUNDS):
            agent = Agent(name="a", tools=[echo], model=script(call("echo", text="x"), "done"))
            began = time.perf_counter()
            await Runner.run(agent, text)
            whole.append(time.perf_counter() - began)
            governing.append(await around(agent) / CALLS)
        return "done"

    config = {"plugins": {"tool_policy": POLICY}}
    async with gateway_in_memory({"W": run_workflow}, config=config, plugins={"listener": Listener}) as g:
        await g.openai.chat.completions.create(model="W", messages=[{"role": "user", "content": "hi"}])
    best = min(governing) * 1e6
    print(f"governing a tool call:                     {best:8.1f} µs")
    print(f"a run of two turns with one call, to compare: {min(whole) * 1e6:5.0f} µs")
    if best > LIMIT:
        sys.exit(f"that is more than {LIMIT:g} µs")


if __name__ == "__main__":
    asyncio.run(main())
