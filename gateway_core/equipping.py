"""An agent that was just loaded gets the gateway's tools, and each of its tools goes by the plugins once.

Happens before the agent's first run: the SDK fails every concurrent run of an agent whose tools are replaced.
"""

from typing import Any

from agents import Agent

from gateway_core.hooks import Hooks
from gateway_core.runnables import Runnable
from gateway_core.types import AgentEntry

_MARK = "_agent_gateway_equipped_by"


def equip(runnable: Runnable, entry: AgentEntry, hooks: Hooks) -> None:
    """Add the plugins' extra tools to the agent, and let the plugins wrap each tool of every agent it can reach.

    An agent that is shared, such as an installed package's or a handoff target of two others, is equipped once for
    each set of hooks, so that no tool is wrapped twice.
    """
    for position, agent in enumerate(runnable.agents):
        equipped_by: set[int] = vars(agent).setdefault(_MARK, set())
        if id(hooks) in equipped_by:
            continue
        equipped_by.add(id(hooks))
        _equip_one(agent, entry, hooks, extra=position == 0)


def _equip_one(agent: Agent[Any], entry: AgentEntry, hooks: Hooks, *, extra: bool) -> None:
    tools = list(agent.tools)
    if extra:
        present = {getattr(tool, "name", None) for tool in tools}
        # The author's own tool wins over one of the same name that an operator adds.
        tools.extend(tool for tool in hooks.extra_tools(entry) if getattr(tool, "name", None) not in present)
    wrapped = [hooks.wrap_tool(tool, entry) for tool in tools]
    if any(new is not old for new, old in zip(wrapped, agent.tools, strict=False)) or len(wrapped) != len(agent.tools):
        agent.tools = wrapped
