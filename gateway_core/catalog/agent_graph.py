"""Walks the graph of agents and tools that a run can reach from its first agent.

Read-only: this module does not modify agents.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from agents import Agent, FunctionTool

from gateway_core.sdk import compat
from gateway_core.tools.origin import origin_of
from gateway_core.tools.references import gateway_tool_name


def reachable(agent: Agent[Any], *, skip: Callable[[FunctionTool], bool] | None = None) -> list[Agent[Any]]:
    """Return the agent and every agent reachable by handoff or as a tool: each once, in breadth-first order.

    Args:
        agent: The first agent.
        skip: Whether to ignore the agent of a tool.
    """
    found: dict[int, Agent[Any]] = {}
    waiting = [agent]
    while waiting:
        current = waiting.pop(0)
        if id(current) not in found:
            found[id(current)] = current
            waiting.extend(neighbors(current, skip=skip))
    return list(found.values())


def neighbors(agent: Agent[Any], *, skip: Callable[[FunctionTool], bool] | None = None) -> Iterator[Agent[Any]]:
    """Yield the agents that this agent hands off to or uses as tools."""
    for handoff in agent.handoffs:
        target = handoff if isinstance(handoff, Agent) else compat.target_of_handoff(handoff)
        if isinstance(target, Agent):
            yield target
    for tool in agent.tools:
        if not isinstance(tool, FunctionTool) or (skip is not None and skip(tool)):
            continue
        if isinstance(nested := compat.agent_of_tool(tool), Agent):
            yield nested


def inventory(agents: Iterable[Any]) -> list[dict[str, Any]]:
    """Describe each agent that a run can reach, as JSON-serializable objects.

    Args:
        agents: The SDK's agent objects.
    """
    return [
        {
            "name": agent.name,
            "model": agent.model if isinstance(agent.model, str) else _class_of(agent.model),
            "tools": [_tool(tool) for tool in agent.tools],
            "mcp_servers": [server.name for server in agent.mcp_servers],
            "handoffs": [_handoff(target) for target in agent.handoffs],
        }
        for agent in agents
    ]


def _tool(tool: Any) -> dict[str, Any]:
    origin = origin_of(tool)
    return {
        "name": origin.name or gateway_tool_name(tool.name) if origin.source in ("gateway", "mcp") else tool.name,
        "source": origin.source,
        "server": origin.server,
        "enabled": tool.is_enabled if isinstance(getattr(tool, "is_enabled", None), bool) else None,
    }


def _handoff(target: Any) -> str:
    return str(getattr(target, "agent_name", None) or getattr(target, "name", type(target).__name__))


def _class_of(model: Any) -> str | None:
    """Describe an agent's own model object; `None` when the agent names no model."""
    return None if model is None else f"an object of {type(model).__name__}"
