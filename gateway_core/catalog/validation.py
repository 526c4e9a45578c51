"""Validates agents at load time: detects mistakes that the SDK would report only at run time, in every run.

It does not modify agents and does not read their source.
"""

import inspect
from typing import Any

from agents import Agent, AgentOutputSchema, AgentOutputSchemaBase, FunctionTool, UserError
from agents.sandbox import SandboxAgent

from gateway_core.catalog.agent_graph import reachable
from gateway_core.catalog.export_resolver import declared_context
from gateway_core.catalog.runnables import AgentRunnable, Runnable
from gateway_core.catalog.unsupported_exports import part_of_temporal
from gateway_core.errors import LoadError
from gateway_core.sdk import compat
from gateway_core.sdk.sandbox_clients import CURE
from gateway_core.types import RunContext

SANDBOX = "sandbox"
"""The code of the error for an agent that needs a sandbox, if none is configured."""


def check(runnable: Runnable, source: str, *, sandbox: bool) -> list[str]:
    """Validate every agent that a run can reach.

    Args:
        runnable: The runnable to serve.
        source: The location of the agent, for errors.
        sandbox: Whether a sandbox is configured.

    Returns:
        Warnings for the operator.

    Raises:
        LoadError: An agent cannot run.
    """
    for agent in runnable.agents:
        found = _tools(agent) or part_of_temporal(agent) or _output(agent) or _instructions(agent)
        if found is not None:
            message, hint = found
            raise LoadError(f"the agent '{agent.name}' {message}", source=source, hint=hint, code="export")
    if not sandbox and isinstance(runnable, AgentRunnable):
        _check_sandbox(runnable.agent, source)
    return _context(runnable)


def _check_sandbox(first: Agent[Any], source: str) -> None:
    """Check that no run needs a sandbox. The code of a workflow, and of a tool, can configure its own."""
    for agent in reachable(first, skip=_has_sandbox):
        if isinstance(agent, SandboxAgent):
            raise LoadError(
                f"the agent '{agent.name}' works in a sandbox (SandboxAgent), and none is configured",
                source=source,
                hint=CURE,
                code=SANDBOX,
            )


def _has_sandbox(tool: FunctionTool) -> bool:
    return getattr(compat.run_config_of_tool(tool), "sandbox", None) is not None


def _tools(agent: Agent[Any]) -> tuple[str, str] | None:
    for tool in agent.tools:
        if isinstance(tool, Agent):
            return (
                f"has the agent '{tool.name}' in its tools",
                "convert it with `.as_tool(tool_name, tool_description)`",
            )
        if not hasattr(tool, "name"):
            name = getattr(tool, "__name__", type(tool).__name__)
            return f"has '{name}' in its tools, which is not a tool", "decorate the function with `@function_tool`"
    return None


def _output(agent: Agent[Any]) -> tuple[str, str] | None:
    output_type = agent.output_type
    if output_type is None or isinstance(output_type, AgentOutputSchemaBase):
        return None
    try:
        AgentOutputSchema(output_type)
    except UserError:
        hint = "declare all its fields, or use `AgentOutputSchema(…, strict_json_schema=False)`"
        return "has an output type that does not support a strict JSON schema", hint
    return None


def _instructions(agent: Agent[Any]) -> tuple[str, str] | None:
    if not callable(agent.instructions) or len(inspect.signature(agent.instructions).parameters) == 2:
        return None
    return "has an instructions function with the wrong parameters", "define it as `def instructions(context, agent)`"


def _context(runnable: Runnable) -> list[str]:
    if not isinstance(runnable, AgentRunnable) or runnable.build_context is not None:
        return []
    declared = declared_context(runnable.agent)
    if declared is None or declared in (*RunContext.__mro__, type(None)):
        return []
    name = declared.__name__
    problem = f"its context type {name} cannot be created without arguments, so its tools receive none"
    return [f"{problem}; define `build_context(run)`"]
