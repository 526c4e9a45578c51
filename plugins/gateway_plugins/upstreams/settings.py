"""Defines `[plugins.upstreams]`: the named upstreams and their connection settings.

`routing.py` resolves model names.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import Factory, evolve, field, frozen

from gateway_core import Amount, Bytes, Count, Secret, Timeout, Url, named_tables

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
"""The SDK's names of tools that run at the provider instead of in the agent."""


@frozen
class Upstream:
    """`[plugins.upstreams.NAME]`: one OpenAI-compatible server."""

    base_url: Url
    api_key: Secret | None = None
    api: Literal["chat", "responses"] = "chat"
    """The OpenAI API that the server supports: Chat Completions or Responses."""
    default_model: str | None = None
    """The model for agents without a model, or with an unknown one. The default is the first model that it lists."""
    hosted_tools: Literal["drop", "refuse"] = "drop"
    """Whether to drop tools that only OpenAI can run, such as web search, or to reject the run, if `api` is `chat`."""
    replay: Literal["auto", "reasoning_content", "none"] = "auto"
    """Whether reasoning that led to a tool call is sent back, if `api` is `chat`: `auto` does so for servers that are
    known to require it."""
    substitutes: dict[str, str] = Factory(dict)
    """Gateway tools that replace such tools, by name of the hosted tool."""
    models: dict[str, str] = Factory(dict)
    """Aliases: the agents' names for models, and the upstream's names."""
    headers: dict[str, Secret] = Factory(dict)
    connect_timeout: Timeout = Timeout(5.0)
    first_byte_timeout: Timeout = Timeout(60.0)
    """For the start of a stream."""
    idle_timeout: Timeout = Timeout(120.0)
    """For the gap between two parts of a stream."""
    total_timeout: Timeout = Timeout(600.0)
    """For a response that is not streamed, including its headers and retries."""
    max_answer: Bytes = Bytes(64 * 1024 * 1024)
    """Maximum size of a response, decompressed, streamed or not."""
    max_connections: Count = Count(1000)
    max_retries: Amount | None = None
    """Number of retries for calls that fail before the first byte: on 408, 409, 429, 5xx and lost connections. The
    default is 2, or 0 with a `fallback`, since a failover is better than a retry."""
    fallback: str | None = None
    """The upstream to fail over to if this one fails before it produces output."""

    @property
    def retries(self) -> int:
        """The effective number of retries."""
        if self.max_retries is not None:
            return self.max_retries
        return 0 if self.fallback else 2


@frozen
class Settings:
    """`[plugins.upstreams]`."""

    probe: bool = True
    """Without a configured upstream and OPENAI_API_KEY, probe for Ollama and LM Studio on this machine."""
    default: str | None = None
    upstreams: Mapping[str, Upstream] = field(factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], structure: Callable[..., Any]) -> "Settings":
        """Build the settings from the plugin's table. Nested tables are upstreams."""
        settings: Settings
        settings, upstreams = named_tables(
            table, lambda own: structure(own, cls), lambda name, value: structure(value, Upstream, name)
        )
        return evolve(settings, upstreams=upstreams)
