"""Authorizes and limits tool calls: allow lists, deny lists, timeouts and size limits, globally and per agent.

It does not inspect arguments and results except for their size.
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
    """`[plugins.tool_policy.agents.NAME]`: the allow list and the deny list of one agent."""

    allow: list[str] | None = None
    deny: list[str] = Factory(list)


@frozen
class Settings:
    """`[plugins.tool_policy]`."""

    timeout: Seconds = Seconds(60.0)
    """Timeout for tools without their own timeout; 0 means no timeout."""
    max_arguments: Bytes = Bytes(64 * 1024)
    """Maximum size of the arguments of a call; larger calls are rejected."""
    max_result: Bytes = Bytes(1024 * 1024)
    """Maximum size of a result; the rest is cut off."""
    deny: list[str] = Factory(list)
    """Tools that no agent may call."""
    closed: list[str] = Factory(list)
    """Sources whose tools may only be called if an agent's `allow` names them."""
    agents: dict[str, Rules] = Factory(dict)


class ToolPolicy:
    """The plugin `tool_policy`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Apply changed rules to subsequent calls, and changed limits to the tools of agents that are loaded later.

        Raises:
            ConfigError: `closed` contains an unknown source.
        """
        for source in config.closed:
            if source not in SOURCES:
                raise ConfigError(
                    f"unknown tool source '{source}'",
                    source="[plugins.tool_policy] closed",
                    hint=f"one of: {', '.join(SOURCES)}",
                )
        self._config = config
        self._rules = {name.casefold(): rules for name, rules in config.agents.items()}

    @hookimpl
    async def authorize_tool(self, run: RunContext, tool: ToolInfo) -> Decision | None:
        """Decide by the configured rules, or abstain with `None` if no rule applies."""
        config, rules = self._config, self._rules.get(tool.agent_id.casefold())
        if (pattern := _match(config.deny, tool)) is not None:
            return _deny(pattern, "denied for all agents")
        if rules is not None:
            if (pattern := _match(rules.deny, tool)) is not None:
                return _deny(pattern, "denied for this agent")
            if rules.allow is not None:
                if (pattern := _match(rules.allow, tool)) is not None:
                    return Decision(True, "tool_policy", pattern)
                return _deny(None, "not in this agent's allow list")
        if tool.source in config.closed:
            return _deny(None, f"source '{tool.source}' requires an entry in this agent's allow list")
        return None

    @hookimpl
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> None:
        """Apply the limits to the tool, in place."""
        from gateway_plugins.tool_policy.limits import limit

        limit(tool, self._config.timeout, self._config.max_arguments, self._config.max_result)


def _match(patterns: Sequence[str], tool: ToolInfo) -> str | None:
    """Return the first pattern that matches one of the tool's names."""
    names = tool_names(tool.name, tool.source, tool.server)
    return next((pattern for pattern in patterns for name in names if matches(pattern, name)), None)


def _deny(pattern: str | None, reason: str) -> Decision:
    return Decision(False, "tool_policy", pattern, reason)
