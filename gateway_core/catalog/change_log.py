"""Logs what a reload changed: one line for each agent that was loaded, added or removed, and one for the gateway tools.

A broken agent is not logged here: its error is announced when the load fails.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gateway_core.catalog.agent_loader import Loaded
from gateway_core.catalog.runnables import AgentRunnable
from gateway_core.tools.references import gateway_tool_name
from gateway_core.types import ServedAgent

logger = logging.getLogger(__name__)

Modules = Mapping[str, Sequence[ServedAgent]]
"""The agents that are served for each entry, by the entry's id; none for an entry that has never loaded."""


def log_agents(
    before: Modules,
    broken_before: Collection[str],
    after: Modules,
    broken: Collection[str],
    loads: Mapping[str, Loaded],
) -> None:
    """Log the differences between two catalogs.

    Args:
        before: The agents of the previous catalog.
        broken_before: The ids of its broken agents.
        after: The agents of the new catalog.
        broken: The ids of its broken agents.
        loads: The agents that were loaded for it.
    """
    for agent_id, agents in after.items():
        if (load := loads.get(agent_id)) is not None:
            tools = _number_of_tools(agents)
            logger.info(
                "%s %s%s in %s",
                "reloaded" if agent_id in before else "added",
                agent_id,
                "" if tools is None else f" ({_count(tools, 'tool')})",
                _duration(load.seconds),
                extra={"fields": {"agent_id": agent_id, "tools": tools, "seconds": round(load.seconds, 6)}},
            )
            known_warnings = {*load.notes, *(text for each in before.get(agent_id, ()) for text in each.warnings)}
            for text in dict.fromkeys(text for each in agents for text in each.warnings):
                if text not in known_warnings:
                    logger.warning("%s: %s", agent_id, text, extra={"fields": {"agent_id": agent_id}})
        elif agent_id in broken_before and agent_id not in broken:
            logger.info("%s works again", agent_id, extra={"fields": {"agent_id": agent_id}})
    for agent_id in before:
        if agent_id not in after:
            logger.info("removed %s", agent_id, extra={"fields": {"agent_id": agent_id}})


def log_tools(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Log the differences between the gateway tools of two catalogs; a changed tool is another object."""
    changes = {
        "added": [name for name in after if name not in before],
        "reloaded": [name for name in after if name in before and after[name] is not before[name]],
        "removed": [name for name in before if name not in after],
    }
    for verb, found in changes.items():
        if found:
            names = [gateway_tool_name(name) for name in found]
            noun = "gateway tool" if len(names) == 1 else "gateway tools"
            logger.info("%s %s %s", verb, noun, ", ".join(names), extra={"fields": {"tools": names}})


def _number_of_tools(agents: Sequence[ServedAgent]) -> int | None:
    """The number of tools of the SDK's agents that runs can reach; `None` for a workflow, whose code creates agents."""
    if not all(isinstance(each.runnable, AgentRunnable) for each in agents):
        return None
    found: dict[int, Any] = {id(agent): agent for each in agents for agent in each.runnable.agents}
    return sum(len(agent.tools) for agent in found.values())


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
