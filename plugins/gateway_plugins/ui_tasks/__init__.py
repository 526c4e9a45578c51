"""Keeps what chat UIs ask in the background away from agents: titles, tags, follow-ups, search queries, autocompletion.

A UI makes four to eight such requests a message, to the model that the person chats with. They are recognised in
`recognition.py`; a model alone answers them, or `answers.py` where there is none. This plugin runs nothing by itself.
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
    """The model that answers, as the routing understands names; without it, the default upstream's own."""
    local: bool = False
    """Whether no model is asked at all."""
    headers: list[str] = Factory(lambda: ["x-openwebui-task", "x-agent-gateway-task"])
    """Headers in which a UI says what its request is for."""
    prompts: bool = True
    """Whether requests are also recognised by their prompts."""


class UiTasks:
    """The plugin `ui_tasks`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self.reconfigure(config)

    def reconfigure(self, config: Settings) -> None:
        """Take other settings for requests from now on."""
        self._config = config
        self._headers = [name.lower() for name in config.headers]

    @hookimpl
    def background_task(
        self, headers: Mapping[str, str], messages: Sequence[Mapping[str, Any]], stream: bool
    ) -> BackgroundTask | None:
        """The task that a request is for, by its headers, else by its prompt."""
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
