"""Which tools may be called, for how long, and with how much: by name, for all agents and for single ones.

It looks at no argument and at no answer but for their size, and stops nothing but what the settings name.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import Factory, frozen

from gateway_core import (
    AgentEntry,
    Bytes,
    ConfigError,
    Decision,
    Gateway,
    RunContext,
    Seconds,
    ToolInfo,
    hookimpl,
    matches,
    tool_names,
)

if TYPE_CHECKING:
    from agents import Tool

SOURCES = ("sdk-native", "gateway", "mcp", "hosted")


@frozen
class Rules:
    """`[plugins.tool_policy.agents.NAME]`: what one agent may call."""

    allow: list[str] | None = None
    deny: list[str] = Factory(list)


@frozen
class Settings:
    """`[plugins.tool_policy]`."""

    timeout: Seconds = Seconds(60.0)
    """For a tool that sets none itself; 0 sets none."""
    max_arguments: Bytes = Bytes(64 * 1024)
    """What a model may write for one call; a longer one is not made."""
    max_result: Bytes = Bytes(1024 * 1024)
    """What goes back to the model; the rest is cut off."""
    deny: list[str] = Factory(list)
    """Names that no agent may call."""
    closed: list[str] = Factory(list)
    """Sources whose tools may be called only where an agent's `allow` names them."""
    agents: dict[str, Rules] = Factory(dict)


class ToolPolicy:
    """The plugin `tool_policy`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Take other rules for calls from now on, and other limits for the tools of agents that are loaded from now on.

        Raises:
            ConfigError: There is no such source of tools.
        """
        for source in config.closed:
            if source not in SOURCES:
                raise ConfigError(
                    f"there is no source '{source}'",
                    source="[plugins.tool_policy] closed",
                    hint=f"one of: {', '.join(SOURCES)}",
                )
        self._config = config
        self._rules = {name.casefold(): rules for name, rules in config.agents.items()}

    @hookimpl
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """What the settings say; no opinion where they say nothing."""
        config, rules = self._config, self._rules.get(tool.agent_id.casefold())
        if (pattern := _match(config.deny, tool)) is not None:
            return _refuse(pattern, "it is denied to all agents")
        if rules is not None:
            if (pattern := _match(rules.deny, tool)) is not None:
                return _refuse(pattern, "it is denied to this agent")
            if rules.allow is not None:
                if (pattern := _match(rules.allow, tool)) is not None:
                    return Decision(True, "tool_policy", pattern)
                return _refuse(None, "this agent is allowed others only")
        if tool.source in config.closed:
            return _refuse(None, f"tools of the kind '{tool.source}' must be allowed by name")
        return None

    @hookimpl
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> None:
        """Give it the limits, in place."""
        from gateway_plugins.tool_policy.limits import limit

        limit(tool, self._config.timeout, self._config.max_arguments, self._config.max_result)


def _match(patterns: Sequence[str], tool: ToolInfo) -> str | None:
    """The first pattern that fits one of its names."""
    names = tool_names(tool.name, tool.source, tool.server)
    return next((pattern for pattern in patterns for name in names if matches(pattern, name)), None)


def _refuse(pattern: str | None, reason: str) -> Decision:
    return Decision(False, "tool_policy", pattern, reason)
