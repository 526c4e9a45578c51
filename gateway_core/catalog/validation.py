"""Finds, when an agent is loaded, what the SDK would only find when it runs: mistakes that fail each of its runs.

It changes nothing, and looks at no source.
"""

import inspect
from typing import Any

from agents import Agent, AgentOutputSchema, AgentOutputSchemaBase, UserError

from gateway_core.catalog.export_resolver import declared_context
from gateway_core.catalog.runnables import AgentRunnable, Runnable
from gateway_core.errors import LoadError
from gateway_core.types import RunContext


def check(runnable: Runnable, source: str) -> list[str]:
    """Look at every agent that a run can reach.

    Args:
        runnable: What is to be served.
        source: Where it comes from, for errors.

    Returns:
        What an operator should know, a sentence each.

    Raises:
        LoadError: An agent cannot run.
    """
    for agent in runnable.agents:
        found = _tools(agent) or _output(agent) or _instructions(agent)
        if found is not None:
            message, hint = found
            raise LoadError(f"the agent '{agent.name}' {message}", source=source, hint=hint, code="export")
    return _context(runnable)


def _tools(agent: Agent[Any]) -> tuple[str, str] | None:
    for tool in agent.tools:
        if isinstance(tool, Agent):
            return f"has the agent '{tool.name}' among its tools", "write `.as_tool(tool_name, tool_description)`"
        if not hasattr(tool, "name"):
            name = getattr(tool, "__name__", type(tool).__name__)
            return f"has '{name}' among its tools, which is none", "decorate the function with `@function_tool`"
    return None


def _output(agent: Agent[Any]) -> tuple[str, str] | None:
    wanted = agent.output_type
    if wanted is None or isinstance(wanted, AgentOutputSchemaBase):
        return None
    try:
        AgentOutputSchema(wanted)
    except UserError:
        hint = "name each field of it, or write `AgentOutputSchema(…, strict_json_schema=False)`"
        return "has an output type without a strict schema", hint
    return None


def _instructions(agent: Agent[Any]) -> tuple[str, str] | None:
    if not callable(agent.instructions) or len(inspect.signature(agent.instructions).parameters) == 2:
        return None
    return "has instructions that the SDK cannot call", "write `def instructions(context, agent)`"


def _context(runnable: Runnable) -> list[str]:
    if not isinstance(runnable, AgentRunnable) or runnable.build_context is not None:
        return []
    declared = declared_context(runnable.agent)
    if declared is None or declared in (*RunContext.__mro__, type(None)):
        return []
    name = declared.__name__
    return [f"its context {name} cannot be made without arguments, so its tools get none; write `build_context(run)`"]
