"""`[plugins.upstreams]`: the named upstreams and how to talk to each.

It holds values only; what a name is routed to is in `routing.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Factory, field, frozen

from gateway_core import Bytes, Seconds, Secret

HOSTED_TOOLS = (
    "web_search",
    "file_search",
    "code_interpreter",
    "hosted_mcp",
    "image_generation",
    "local_shell",
    "computer_use_preview",
    "shell",
    "apply_patch",
    "tool_search",
)
"""What the SDK calls the tools that run elsewhere than in the agent."""


@frozen
class Upstream:
    """`[plugins.upstreams.NAME]`: one OpenAI-compatible server."""

    base_url: str
    api_key: Secret | None = None
    api: Literal["chat", "responses"] = "chat"
    """Which of OpenAI's two APIs it speaks."""
    default_model: str | None = None
    """Used for agents that name no model, or one that no upstream has. Without it, the first model that it lists."""
    hosted_tools: Literal["drop", "refuse"] = "drop"
    """What becomes of tools that only OpenAI can run (web search and the like) where `api` is `chat`."""
    substitutes: dict[str, str] = Factory(dict)
    """Gateway tools that take the place of such tools: `web_search` to the name of one that searches."""
    models: dict[str, str] = Factory(dict)
    """Other names for its models: what an agent says to what the upstream calls it."""
    headers: dict[str, Secret] = Factory(dict)
    connect_timeout: Seconds = Seconds(5.0)
    first_byte_timeout: Seconds = Seconds(60.0)
    """For a stream to begin."""
    idle_timeout: Seconds = Seconds(120.0)
    """For a stream that has begun to go on."""
    total_timeout: Seconds = Seconds(600.0)
    """For an answer that is not streamed."""
    max_answer: Bytes = Bytes(64 * 1024 * 1024)
    """Of one answer, streamed or not."""
    max_connections: int = 1000
    max_retries: int | None = None
    """How often a call is repeated that failed before its first byte: on 408, 409, 429, 5xx and lost connections. None
    is 2, and 0 where there is a `fallback`, which is the better second try."""
    fallback: str | None = None
    """The upstream that is asked where this one fails before it has said anything."""

    @property
    def retries(self) -> int:
        """`max_retries`, or its default."""
        if self.max_retries is not None:
            return self.max_retries
        return 0 if self.fallback else 2


@frozen
class _Switches:
    probe: bool = True
    default: str | None = None


@frozen
class Settings:
    """`[plugins.upstreams]`."""

    probe: bool = True
    """With no upstream configured and no OPENAI_API_KEY, look for Ollama and LM Studio on this machine."""
    default: str | None = None
    upstreams: Mapping[str, Upstream] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Tables below the plugin's own are upstreams, the rest are its settings."""
        own = {key: value for key, value in table.items() if not isinstance(value, dict)}
        switches = structure(own, _Switches)
        upstreams = {name: structure(value, Upstream, name) for name, value in table.items() if isinstance(value, dict)}
        return cls(switches.probe, switches.default, upstreams)
