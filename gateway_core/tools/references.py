"""References to gateway tools by name: `use_gateway_tool` and `use_gateway_tools`.

`catalog/tool_binding.py` resolves them when the agent is loaded. Importing this module does not import the SDK.
"""

import functools
import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core.tools.patterns import parse_pattern

if TYPE_CHECKING:
    from agents import FunctionTool

_MARK = "_agent_gateway_wanted"


@frozen
class Wanted:
    """A reference to a gateway tool, or to several by pattern."""

    name: str
    """A tool name such as `calculate` or `mail/send`, or a pattern such as `mail/*`."""
    description: str | None = None
    rename: str | None = None
    optional: bool = False
    """Whether the agent works without the tool if it does not exist."""
    instead_of: str | None = None
    """The hosted tool for which it is a substitute."""

    @property
    def is_pattern(self) -> bool:
        """Whether the name is a pattern."""
        return "*" in self.name


def use_gateway_tool(
    name: str, *, description: str | None = None, rename: str | None = None, optional: bool = False
) -> "FunctionTool":
    """Return a reference to a gateway tool, for an agent's `tools`.

    The same arguments return the same object. The gateway resolves the reference when it loads the agent. Without a
    gateway, a call of the tool raises the SDK's `UserError`.

    Args:
        name: The name of the gateway tool, such as `calculate` or `mail/send`.
        description: A description for the model that replaces that of the tool.
        rename: A name for the model that replaces that of the tool.
        optional: If the tool does not exist, load the agent without it instead of failing.
    """
    return _placeholder(Wanted(name, description, rename, optional))


def use_gateway_tools(pattern: str) -> "list[FunctionTool]":
    """Return references to all gateway tools whose names match: `tools=[*use_gateway_tools("mail/*")]`.

    Args:
        pattern: A name in which `*` matches one part between slashes, and `**` any number of parts.
    """
    parse_pattern(gateway_tool_name(pattern))
    return [_placeholder(Wanted(pattern, optional=True))]


def wanted_of(tool: Any) -> Wanted | None:
    """Return the reference that a tool object represents, or `None` if it is not a reference."""
    wanted: Wanted | None = vars(tool).get(_MARK)
    return wanted


def mark_wanted(tool: Any, wanted: Wanted) -> None:
    """Mark a tool object as a reference."""
    vars(tool)[_MARK] = wanted


def sdk_tool_name(name: str) -> str:
    """Return the name of a gateway tool for models, whose tool names cannot contain slashes."""
    return name.replace("/", "__")


def gateway_tool_name(name: str) -> str:
    """Return the name of a gateway tool with slashes between its parts."""
    return name.replace("__", "/")


def tool_names(name: str, source: str, server: str | None = None) -> tuple[str, ...]:
    """Return the names under which policies match a tool. They cannot match a tool of another origin.

    Args:
        name: The name of the tool for policies.
        source: One of `ToolSource`.
        server: For an MCP tool, the name of the server.
    """
    if source == "mcp" and server is not None:
        # A server controls the names of its tools. A name with a slash must not match a tool of another server.
        own = name.removeprefix(f"{server}/")
        qualified = f"{server}/{own}"
        return (qualified,) if "/" in own else (own, qualified)
    # An agent's own tool must not match a gateway tool.
    if source in ("sdk-native", "hosted"):
        return (sdk_tool_name(name),)
    # Models and logs show the name without slashes.
    return (name, sdk_tool_name(name)) if "/" in name else (name,)


@functools.cache
def _placeholder(wanted: Wanted) -> "FunctionTool":
    from agents import FunctionTool, UserError

    async def without_gateway(_context: Any, _arguments: str) -> Any:
        raise UserError(
            f"the tool '{wanted.name}' is available only in the gateway: run this agent with `agent-gateway serve` or "
            "`agent-gateway chat MODEL`"
        )

    tool = FunctionTool(
        name=wanted.rename or re.sub(r"[^A-Za-z0-9_-]", "_", sdk_tool_name(wanted.name)),
        description=wanted.description or f"The gateway tool {wanted.name}.",
        params_json_schema={"type": "object", "properties": {}, "additionalProperties": True},
        on_invoke_tool=without_gateway,
        strict_json_schema=False,
        # Outside a gateway the tool cannot work, so an optional one is hidden from the model.
        is_enabled=not wanted.optional,
    )
    mark_wanted(tool, wanted)
    return tool
