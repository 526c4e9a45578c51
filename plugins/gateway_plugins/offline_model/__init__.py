"""The built-in model for a first run without a key or a network. Its answers state that it is not an LLM.

It answers when no plugin before it provides a model.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_core import AgentEntry, Gateway, RunContext, Seconds, hookimpl

if TYPE_CHECKING:
    from agents import ModelProvider


@frozen
class Settings:
    """`[plugins.offline_model]`."""

    word_delay: Seconds = Seconds(0.015)
    """Before each word of a streamed answer."""


class OfflineModelPlugin:
    """The plugin `offline_model`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._config = config
        self._provider: ModelProvider | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Creates the model, and sets a placeholder key: a module that creates its own OpenAI client requires one."""
        from gateway_plugins.offline_model.model import OfflineProvider

        self._provider = OfflineProvider(word_delay=self._config.word_delay)
        added = {"OPENAI_API_KEY": "offline"} if not os.environ.get("OPENAI_API_KEY") else {}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)

    @hookimpl
    def model_provider(self, run: RunContext, entry: AgentEntry) -> "ModelProvider | None":
        """The offline model, for every model name. It does not answer a chat UI's background tasks."""
        return None if run.task else self._provider

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The settings, and that it is not an LLM. A plugin that provides an upstream precedes it in the banner."""
        banner = {"upstream": "the built-in offline model, not an LLM"}
        return {"banner": banner, "is_llm": False, "word_delay": self._config.word_delay}
