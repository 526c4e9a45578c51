"""What a served agent consists of, as JSON for operators: its agents, their models, tools and MCP servers.

It reads attributes that every SDK agent has, and runs nothing.
"""

from collections.abc import Iterable
from typing import Any

from gateway_core.gateway_tools import path_name
from gateway_core.provenance import origin_of


def inventory(agents: Iterable[Any]) -> list[dict[str, Any]]:
    """One object for each SDK agent that a run can reach.

    Args:
        agents: The SDK's objects.
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
    # Hosted tools have no schema: their calls are made by the model's own servers.
    hosted = not hasattr(tool, "params_json_schema")
    return {
        "name": origin.name or path_name(tool.name) if origin.source != "sdk-native" else tool.name,
        "source": "hosted" if hosted else origin.source,
        "server": origin.server,
        "enabled": tool.is_enabled if isinstance(getattr(tool, "is_enabled", None), bool) else None,
    }


def _handoff(target: Any) -> str:
    return str(getattr(target, "agent_name", None) or getattr(target, "name", type(target).__name__))


def _class_of(model: Any) -> str | None:
    """An agent may bring a model object of its own, or leave the choice to the gateway."""
    return None if model is None else f"an object of {type(model).__name__}"
