"""Records the origin of a tool on the tool object.

The code that creates a gateway tool marks it. A tool without a mark belongs to the agent. Policies evaluate the origin;
this module does not.
"""

from typing import Any

from attrs import frozen

from gateway_core.sdk import compat
from gateway_core.types import ToolSource

_MARK = "_agent_gateway_origin"


@frozen
class ToolOrigin:
    """The facts about a tool that policies evaluate in addition to its name."""

    source: ToolSource = "sdk-native"
    server: str | None = None
    """For an MCP tool: the configured name of the server."""
    open: bool = True
    """Whether the tool may be called when every policy abstains."""
    name: str | None = None
    """The name that policies use, if the agent's author may have renamed the tool."""
    instead_of: str | None = None
    """The hosted tool that it replaces if the upstream does not support that one."""


def mark_tool(tool: Any, origin: ToolOrigin) -> None:
    """Record the origin of a tool object."""
    vars(tool)[_MARK] = origin


def origin_of(tool: Any) -> ToolOrigin:
    """Return the origin set by `mark_tool`. Without it, the tool belongs to a server or to the agent.

    A shell, a patch editor, a computer and a custom tool run here, and are the agent's own (`sdk-native`).
    """
    marked: ToolOrigin | None = vars(tool).get(_MARK)
    if marked is not None:
        return marked
    if not hasattr(tool, "params_json_schema"):
        return ToolOrigin("sdk-native" if _runs_here(tool) else "hosted")
    # The SDK creates the tools of an agent's own MCP servers in each turn, with this attribute.
    binding = compat.mcp_binding_of_tool(tool)
    return ToolOrigin("mcp", server=binding[0], name=binding[1]) if binding is not None else ToolOrigin()


def _runs_here(tool: Any) -> bool:
    """Whether a tool that is not a function runs in the gateway's process, and not on the model's server."""
    from agents import ApplyPatchTool, ComputerTool, CustomTool, LocalShellTool, ShellTool

    local = isinstance(tool, ApplyPatchTool | ComputerTool | CustomTool | LocalShellTool)
    return local or (isinstance(tool, ShellTool) and tool.executor is not None)
