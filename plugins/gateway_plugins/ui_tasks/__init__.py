"""Answers background requests of chat UIs without running the agent: titles, tags, follow-ups, search queries.

A UI sends four to eight such requests per message, to the model of the chat. `recognition.py` detects them. A plain
model call answers them, or `answers.py` if no model is available. The core makes the model call, not this plugin.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, frozen

from gateway_core import BackgroundTask, Gateway, hookimpl
from gateway_plugins.ui_tasks import recognition
from gateway_plugins.ui_tasks.answers import local_answer


@frozen
class Settings:
    """`[plugins.ui_tasks]`."""

    model: str | None = None
    """The model that answers, resolved to an upstream like an agent's model. Default: the default upstream's model."""
    local: bool = False
    """Whether to answer locally, without a model call."""
    headers: list[str] = Factory(lambda: ["x-openwebui-task", "x-agent-gateway-task"])
    """Names of request headers that contain the task."""
    prompts: bool = True
    """Whether to detect tasks by their prompts as well."""


class UiTasks:
    """The plugin `ui_tasks`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Applies new settings to subsequent requests."""
        self._config = config
        self._headers = [name.lower() for name in config.headers]

    @hookimpl
    def background_task(
        self, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """Returns the background task of a request, detected by its headers or else by its prompt."""
        task = recognition.by_header(headers, self._headers)
        if task is None and self._config.prompts:
            task = recognition.by_prompt(messages, stream=stream)
        if task is None:
            return None
        return BackgroundTask(
            task.kind,
            model=self._config.model,
            answer=local_answer(task, recognition.prompt_of(messages)),
            local=self._config.local,
        )
