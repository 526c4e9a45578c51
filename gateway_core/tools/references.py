"""References to gateway tools by name: `use_gateway_tool` and `use_gateway_tools`.

`catalog/tool_binding.py` resolves them when the agent is loaded. Importing this module does not import the SDK.
"""

import functools
import re
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from agents import FunctionTool

_MARK = "_agent_gateway_wanted"


@frozen
class Wanted:
    """What an agent asks for."""

    name: str
    """A tool's name, such as `calculate` or `mail/send`, or a pattern, such as `mail/*`."""
    description: str | None = None
    rename: str | None = None
    optional: bool = False
    """Whether the agent does without it where there is none."""
    instead_of: str | None = None
    """The hosted tool that it was put beside."""

    @property
    def is_pattern(self) -> bool:
        """Whether it asks for all tools of a group."""
        return "*" in self.name


def use_gateway_tool(
    name: str, *, description: str | None = None, rename: str | None = None, optional: bool = False
) -> "FunctionTool":
    """A tool of the gateway's, for an agent's `tools`.

    The same arguments give the same object. What the tool does and takes is known when the gateway loads the agent.
    Without a gateway, calling it raises the SDK's `UserError`.

    Args:
        name: What the gateway calls it, such as `calculate` or `mail/send`.
        description: What to tell the model instead of the tool's own description.
        rename: What to call it to the model.
        optional: Do without it where the gateway has no such tool, instead of not loading the agent.
    """
    return _placeholder(Wanted(name, description, rename, optional))


def use_gateway_tools(pattern: str) -> "list[FunctionTool]":
    """All tools of the gateway's whose names match, for an agent's `tools`: `tools=[*use_gateway_tools("mail/*")]`.

    Args:
        pattern: A name in which `*` stands for one part between slashes, and `**` for any number of them.
    """
    return [_placeholder(Wanted(pattern, optional=True))]


def wanted_of(tool: Any) -> Wanted | None:
    """What a tool object stands for; `None` for a tool that is no gateway tool."""
    wanted: Wanted | None = vars(tool).get(_MARK)
    return wanted


def mark_wanted(tool: Any, wanted: Wanted) -> None:
    """Say what a tool object stands for."""
    vars(tool)[_MARK] = wanted


def sdk_tool_name(name: str) -> str:
    """A tool's name as models may see it: they take no slash."""
    return name.replace("/", "__")


def gateway_tool_name(name: str) -> str:
    """A tool's name as people write it, in parts between slashes."""
    return name.replace("__", "/")


def matches(pattern: str, name: str) -> bool:
    """Whether a tool's name fits a pattern, part by part: `*` is one part, or within one; `**` is any number.

    Args:
        pattern: `mail/*`, also as `mail__*`.
        name: As it is: only the gateway's own names are made of parts, so `mail__send` has one.
    """
    if _compiled(pattern).fullmatch(name):
        return True
    return "__" in pattern and _compiled(gateway_tool_name(pattern)).fullmatch(name) is not None


def tool_names(name: str, source: str, server: str | None = None) -> tuple[str, ...]:
    """What policies may call a tool, so that none passes for another's.

    Args:
        name: As policies are told it.
        source: One of `ToolSource`.
        server: For an MCP tool, the server's name.
    """
    if source == "mcp" and server is not None:
        # A server chooses its tools' names: one with a slash must not pass for another server's tool.
        own = name.removeprefix(f"{server}/")
        qualified = f"{server}/{own}"
        return (qualified,) if "/" in own else (own, qualified)
    # Nor does an agent's own tool for one of the gateway's.
    return (sdk_tool_name(name),) if source in ("sdk-native", "hosted") else (name,)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part) or re.escape(part) for part in parts))


@functools.cache
def _placeholder(wanted: Wanted) -> "FunctionTool":
    from agents import FunctionTool, UserError

    async def without_gateway(_context: Any, _arguments: str) -> Any:
        raise UserError(
            f"the tool '{wanted.name}' is the gateway's: run this agent with `agent-gateway serve`, or "
            "`agent-gateway chat MODEL`"
        )

    tool = FunctionTool(
        name=wanted.rename or re.sub(r"[^A-Za-z0-9_-]", "_", sdk_tool_name(wanted.name)),
        description=wanted.description or f"The gateway's tool {wanted.name}.",
        params_json_schema={"type": "object", "properties": {}, "additionalProperties": True},
        on_invoke_tool=without_gateway,
        strict_json_schema=False,
        # Outside a gateway nobody knows it, so no model is told of it when the agent can do without.
        is_enabled=not wanted.optional,
    )
    mark_wanted(tool, wanted)
    return tool
