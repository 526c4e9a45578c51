"""Generates simple answers to background requests without a model, in the format that the UI expects.

A title is the beginning of the user's first message; lists that require a model are empty.
"""

import json
import re
from typing import Any

from gateway_plugins.ui_tasks.recognition import KEYS, Task

_TURN = re.compile(
    r"^(?:user|human):\s*(.*?)(?=^(?:assistant|ai|user|human):|\Z)", re.IGNORECASE | re.DOTALL | re.MULTILINE
)
_TITLE_WORDS = 6
_TITLE_CHARACTERS = 60


def local_answer(task: Task, prompt: str | None) -> str:
    """Returns the answer to a task, derived only from its prompt."""
    said = _first_user_message(prompt or "")
    answers: dict[str, Any] = {
        "title": _title(said),
        "tags": ["General"],
        "follow_ups": [],
        "queries": [said] if said else [],
        "autocomplete": "",
        "image_prompt": said,
        "emoji": "💬",
    }
    answer = answers[task.kind]
    if task.form == "text":
        return str(answer)
    return json.dumps({KEYS.get(task.kind, task.kind): answer}, ensure_ascii=False)


def _first_user_message(prompt: str) -> str:
    """Returns the first user message of the conversation that a prompt quotes."""
    history, closed, _ = prompt.partition("<chat_history>")[2].partition("</chat_history>")
    quoted = history.strip() if closed else prompt.partition("\n\nConversation:\n")[2]
    if not quoted:
        quoted = prompt.partition("\n\n")[2]
    turn = _TURN.search(quoted)
    return " ".join((turn[1] if turn else quoted).split())


def _title(said: str) -> str:
    words = said.split()
    if not words:
        return "New Chat"
    title = " ".join(words[:_TITLE_WORDS])[:_TITLE_CHARACTERS].rstrip(" .,;:!?")
    return title[:1].upper() + title[1:]
