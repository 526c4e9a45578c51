"""Access queries, which the policy evaluates, and overrides, which take precedence over its rules.

The policy is evaluated in `policy/evaluator.py`.
"""

from typing import Literal, Protocol

from attrs import frozen

from gateway_core import Segments, split_name, tool_names

GATEWAY = "gateway"
"""The principal that loads modules: the gateway itself, not the owner of a key."""

_DEFAULT_SOURCE = "sdk-native"


@frozen
class AccessQuery:
    """A request for access to an agent, a tool or a module."""

    kind: Literal["agent", "tool", "module"]
    subject: str
    """An agent's id, a tool's name, or a module's id at discovery."""
    principal: str
    """The id of the calling principal."""
    key: str | None = None
    """The id of the key, its printable prefix, if the caller used one."""
    agent_id: str | None = None
    """For a tool: the id of the running agent."""
    source: str | None = None
    """For a tool: `sdk-native`, `gateway`, `mcp` or `hosted`."""
    server: str | None = None
    """For an MCP tool: the server's name."""

    @property
    def of_module(self) -> "AccessQuery":
        """For an agent: the query whether its module may be loaded."""
        return AccessQuery("module", self.subject, GATEWAY)

    @property
    def names(self) -> list[Segments]:
        """The names of the subject that patterns can match."""
        if self.kind != "tool":
            return [of_agents(split_name(self.subject))]
        return [split_name(name) for name in tool_names(self.subject, self.source or _DEFAULT_SOURCE, self.server)]


@frozen
class Override:
    """A temporary permission that takes precedence over the rules."""

    id: str
    kind: str
    pattern: str
    principal: str
    """The id of the principal, or of the key, that the override applies to."""
    reason: str
    granted_by: str
    created: float
    """Seconds since the epoch."""
    expires: float
    """Seconds since the epoch, for display; the running process uses a monotonic deadline."""


def of_agents(segments: Segments) -> Segments:
    """Normalize the id of an agent, or a pattern for such ids: `default/NAME` is the top-level agent `NAME`."""
    if len(segments) != 2 or segments[0] != "default":
        return segments
    return ("*",) if segments[1] == "**" else segments[1:]


class Overrides(Protocol):
    """The active overrides."""

    def deciding(self, query: AccessQuery) -> Override | None:
        """Return an active override that allows the query, or `None`."""
