"""Limits on tool calls: a timeout, and the sizes of arguments and results.

It does not decide by name; the rules of `security` say which tools may be called.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core import AgentEntry, Bytes, ConfigError, Gateway, Seconds, hookimpl

if TYPE_CHECKING:
    from agents import Tool


@frozen
class _Limits:
    timeout: Seconds = Seconds(60.0)
    """Timeout for tools without their own timeout; 0 means no timeout."""
    max_arguments: Bytes = Bytes(64 * 1024)
    """Maximum size of the arguments of a call; larger calls are rejected."""
    max_result: Bytes = Bytes(1024 * 1024)
    """Maximum size of a result; the rest is cut off."""


@frozen
class Settings(_Limits):
    """`[plugins.tool_policy]`."""

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Read the table.

        Raises:
            ConfigError: It has rules, which are settings of `security`; the hint is the table to write instead.
        """
        for key in ("deny", "closed", "agents"):
            if key in table:
                raise ConfigError(
                    f"'{key}' is a rule; the rules for tools are settings of security",
                    source="[plugins.tool_policy]",
                    hint=f"write instead: {'; '.join(_as_security(key, table[key]))}",
                )
        limits: _Limits = structure(table, _Limits)
        return cls(limits.timeout, limits.max_arguments, limits.max_result)


class ToolPolicy:
    """The plugin `tool_policy`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._config = config

    def reconfigure(self, config: Settings) -> None:
        """Apply changed limits to the tools of agents that are loaded from now on."""
        self._config = config

    @hookimpl
    def wrap_tool(self, tool: "Tool", entry: AgentEntry) -> None:
        """Apply the limits to the tool, in place."""
        from gateway_plugins.tool_policy.limits import limit

        limit(tool, self._config.timeout, self._config.max_arguments, self._config.max_result)


def _as_security(key: str, value: Any) -> list[str]:
    """The lines of `gateway.toml` that say the same as a former setting."""
    if key == "deny":
        return [f"[plugins.security.rules] block_tools = {_toml(value)}"]
    if key == "closed":
        return [f"[plugins.security.rules] closed_tools = {_toml(value)}"]
    lines = []
    for name, rules in value.items() if isinstance(value, dict) else ():
        for old, new in (("allow", "only_tools"), ("deny", "block_tools")):
            if isinstance(rules, dict) and old in rules:
                lines.append(f'[plugins.security.namespaces."{name}"] {new} = {_toml(rules[old])}')
    return lines or ['[plugins.security.namespaces."AGENT"] only_tools = [...]']


def _toml(value: Any) -> str:
    return "[" + ", ".join(f'"{item}"' for item in value) + "]" if isinstance(value, list) else str(value)
