"""Where does a tool come from? Whoever makes a tool for agents to use says so on the tool itself.

It governs nothing. A tool without a mark is the agent's own.
"""

from typing import Any

from attrs import frozen

from gateway_core.types import ToolSource

_MARK = "_agent_gateway_origin"


@frozen
class ToolOrigin:
    """What a policy needs to know of a tool beside its name."""

    source: ToolSource = "sdk-native"
    server: str | None = None
    """For an MCP tool: the server's name, as configured."""
    open: bool = True
    """Whether it may be called when no policy has an opinion on it."""
    name: str | None = None
    """What policies know it by, where an agent's author may have renamed it."""
    instead_of: str | None = None
    """The hosted tool whose work it does where a model's server lacks that one."""


def mark_tool(tool: Any, origin: ToolOrigin) -> None:
    """Say where a tool object comes from."""
    vars(tool)[_MARK] = origin


def origin_of(tool: Any) -> ToolOrigin:
    """What `mark_tool` said; else what the SDK knows of an MCP server's tool; else the tool is the agent's own."""
    marked: ToolOrigin | None = vars(tool).get(_MARK)
    if marked is not None:
        return marked
    # The SDK makes the tools of an agent's own MCP servers anew in each turn, and keeps this binding on them.
    binding = getattr(tool, "_mcp_tool_binding", None)
    return ToolOrigin("mcp", server=binding[0]) if binding else ToolOrigin()
