"""Explains exports that look like agents, but cannot be served: voice agents, and workflows of Temporal.

It identifies them by name, without importing their packages, which the gateway does not require.
"""

from typing import Any

from agents import Agent, FunctionTool

from gateway_core.catalog.load_errors import REALTIME_HINT
from gateway_core.errors import LoadError
from gateway_core.sdk import compat

_REALTIME = "a voice agent (RealtimeAgent), which needs a realtime session over a WebSocket"
_WORKFLOW = "a Temporal workflow, which only a Temporal worker runs"
_WORKFLOW_HINT = (
    "keep it in your worker, and export an `Agent` with a function tool that starts the workflow with "
    "`temporalio.client.Client` and returns its result"
)
_PART_HINT = "it fails outside of a Temporal workflow: run the agent in your worker, or use `@function_tool` instead"


def refuse(exported: object, name: str, source: str) -> None:
    """Raise `LoadError` if an exported object is of a kind that the gateway does not serve."""
    explanation = _explain(exported)
    if explanation is not None:
        kind, hint = explanation
        raise LoadError(f"{name} is {kind}", source=source, hint=hint, code="export")


def part_of_temporal(agent: Agent[Any]) -> tuple[str, str] | None:
    """Return a message and a hint if an agent has a tool or an MCP server that works only in a Temporal workflow."""
    for tool in agent.tools:
        if isinstance(tool, FunctionTool) and _is_temporal(getattr(compat.implementation_of(tool), "__module__", "")):
            return f"has the tool '{tool.name}' of temporalio, which is an activity of a workflow", _PART_HINT
    for server in agent.mcp_servers:
        if _is_temporal(type(server).__module__):
            return (
                f"has the MCP server '{server.name}' of temporalio, which belongs to a workflow",
                _PART_HINT,
            )
    return None


def _explain(exported: object) -> tuple[str, str] | None:
    if any(cls.__module__ == "agents.realtime.agent" for cls in type(exported).__mro__):
        return _REALTIME, REALTIME_HINT
    cls = exported if isinstance(exported, type) else type(exported)
    return (_WORKFLOW, _WORKFLOW_HINT) if hasattr(cls, "__temporal_workflow_definition") else None


def _is_temporal(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "temporalio"
