"""Which agents and tools can a run reach from its first agent?

Read only: nothing here changes an agent.
"""

from collections.abc import Iterator
from typing import Any

from agents import Agent, FunctionTool, Handoff


def reachable(agent: Agent[Any]) -> list[Agent[Any]]:
    """The agent, its handoff targets and its agents-as-tools, and theirs; each once, nearest first."""
    found: dict[int, Agent[Any]] = {}
    waiting = [agent]
    while waiting:
        current = waiting.pop(0)
        if id(current) not in found:
            found[id(current)] = current
            waiting.extend(neighbours(current))
    return list(found.values())


def neighbours(agent: Agent[Any]) -> Iterator[Agent[Any]]:
    """The agents that this one hands off to or uses as tools."""
    for handoff in agent.handoffs:
        target = handoff if isinstance(handoff, Agent) else _target(handoff)
        if isinstance(target, Agent):
            yield target
    for tool in agent.tools:
        if isinstance(tool, FunctionTool) and isinstance(nested := getattr(tool, "_agent_instance", None), Agent):
            yield nested


def _target(handoff: Handoff[Any, Any]) -> object:
    # The SDK keeps a handoff's target only in this attribute; a hand-made handoff has none.
    reference = getattr(handoff, "_agent_ref", None)
    return reference() if reference is not None else None
