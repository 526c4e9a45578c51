"""Detects background requests of chat UIs, and their task.

A user may also ask for a title, so prompts are matched by patterns that users do not write: the frame of Open WebUI's
templates around the part that administrators can edit, and LibreChat's fixed opening followed by the conversation. An
ambiguous request counts as a chat.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

Form = Literal["json", "text"]


@frozen
class Task:
    """A background task."""

    kind: str
    form: Form = "json"
    """Whether the UI expects JSON or plain text."""


# Names of Open WebUI's tasks, without the suffix `_generation`.
_NAMED = {
    "title": Task("title"),
    "tags": Task("tags"),
    "follow_up": Task("follow_ups"),
    "query": Task("queries"),
    "autocomplete": Task("autocomplete"),
    "image_prompt": Task("image_prompt"),
    "emoji": Task("emoji", "text"),
}
KEYS = {"autocomplete": "text", "image_prompt": "prompt"}
"""The JSON key of an answer, where it is not the kind of the task."""
_BY_KEY = {key: kind for kind, key in KEYS.items()}
_KEY = re.compile(r"\{\s*\"(title|tags|follow_ups|queries|text|prompt)\"\s*:")
_SECTION = re.compile(r"^#{2,4} \**(?:output|output rules|guidelines|instructions)\b", re.IGNORECASE | re.MULTILINE)
_HISTORY_START, _HISTORY_END = "<chat_history>", "</chat_history>"
_EMOJI = re.compile(
    r"Your task is to reflect the speaker's likely facial expression through a fitting emoji\..*```", re.DOTALL
)
_LIBRECHAT = re.compile(
    r"Provide a concise,? 5-word-or-less title for the conversation\b.*\n\nConversation:\n", re.DOTALL
)
_LIBRECHAT_STRUCTURED = re.compile(
    r"Analyze this conversation and provide:\n1\. The detected language of the conversation\n2\. A concise title\b"
)


def by_header(headers: Mapping[str, str], names: Iterable[str]) -> Task | None:
    """Returns the task named by a header. Open WebUI sends an empty header for chats."""
    for name in names:
        value = headers.get(name, "").strip().lower()
        if task := _NAMED.get(value.removesuffix("_generation")):
            return task
    return None


def by_prompt(messages: Sequence[Mapping[str, Any]], *, stream: bool) -> Task | None:
    """Returns the task of a prompt, or `None` for a chat."""
    prompt = prompt_of(messages)
    if prompt is None:
        return None
    if _LIBRECHAT.match(prompt):
        return Task("title", "text")
    if _LIBRECHAT_STRUCTURED.match(prompt):
        return Task("title")
    if stream:  # Open WebUI streams only chats
        return None
    if _EMOJI.match(prompt):
        return Task("emoji", "text")
    return _of_openwebui(prompt)


def _of_openwebui(prompt: str) -> Task | None:
    if not prompt.startswith("### Task:\n"):
        return None
    before, start, rest = prompt.partition(_HISTORY_START)
    _, end, after = rest.rpartition(_HISTORY_END)
    if not (start and end):
        return None
    instructions = before + after  # ignore matches in the quoted conversation
    key = _KEY.search(instructions)
    if key is None or not _SECTION.search(instructions):
        return None
    return Task(_BY_KEY.get(key[1], key[1]))


def prompt_of(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Returns the text of the only user message; `None` if there are other messages, as in a chat."""
    conversation = [message for message in messages if isinstance(message, dict) and message.get("role") != "system"]
    if len(conversation) != 1 or conversation[0].get("role") != "user":
        return None
    content = conversation[0].get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("text")
    return content if isinstance(content, str) else None
