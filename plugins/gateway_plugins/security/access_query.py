"""What a policy is asked, and what may answer beside the rules.

It decides nothing.
"""

from typing import Literal, Protocol

from attrs import frozen

from gateway_core import tool_names
from gateway_plugins.security.patterns import Segments, fold, of_agents

GATEWAY = "gateway"
"""The principal that modules are loaded for: nobody's key, but the gateway itself."""

_UNSAID = "sdk-native"


@frozen
class AccessQuery:
    """What is asked."""

    kind: Literal["agent", "tool", "module", "admin"]
    subject: str
    """An agent's id, a tool's name, a module's id at discovery, or the path of an admin page."""
    principal: str
    """Who asks: the principal's id."""
    key: str | None = None
    """The id of the key, its printable prefix, when one was used."""
    namespace: str = "default"
    agent_id: str | None = None
    """For a tool: whose run it is."""
    source: str | None = None
    """For a tool: `sdk-native`, `gateway`, `mcp` or `hosted`."""
    server: str | None = None
    """For an MCP tool: the server's name."""

    @property
    def of_module(self) -> "AccessQuery":
        """For an agent: whether its module may be loaded."""
        return AccessQuery("module", self.subject, GATEWAY, namespace=self.namespace)

    @property
    def names(self) -> list[Segments]:
        """What patterns may call its subject."""
        if self.kind != "tool":
            return [of_agents(fold(self.subject))]
        return [fold(name) for name in tool_names(self.subject, self.source or _UNSAID, self.server)]


@frozen
class Override:
    """Something allowed for a time, whatever the rules say."""

    id: str
    kind: str
    pattern: str
    principal: str
    """The id of the principal, or of the key, that it is for."""
    reason: str
    granted_by: str
    created: float
    """Seconds since the epoch."""
    expires: float
    """Seconds since the epoch, for people; in process the deadline is monotonic."""


class Overrides(Protocol):
    """The overrides that are in force."""

    def deciding(self, question: AccessQuery) -> Override | None:
        """An active override that allows it, if there is one."""


class NoOverrides:
    """Implements `Overrides` where there are none."""

    def deciding(self, question: AccessQuery) -> Override | None:
        """None."""
