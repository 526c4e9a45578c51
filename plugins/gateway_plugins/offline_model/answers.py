"""Words the offline model's answers.

This module must not claim to know anything: an answer repeats what the user wrote and what tools returned.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from typing import Any

from gateway_plugins.offline_model.conversation import Call, Conversation

NOTICE = (
    "I am the gateway's built-in offline model, not an LLM; "
    "set OPENAI_API_KEY or start Ollama or LM Studio to get real answers."
)
_QUOTED = 200
_LONGEST_OUTPUT = 4000
_LONGEST_DATA = 200_000
_DEEPEST = 6


def answer(conversation: Conversation) -> str:
    """An answer in prose: the notice where the conversation begins, then what there is to say."""
    tools = [call for call in conversation.calls if call.handoff_to is None]
    parts = [NOTICE] if conversation.is_new else []
    if not tools:
        parts += [f"{call.handoff_to} has taken over." for call in conversation.calls]
    parts += [_told(call) for call in tools] or [_echoed(conversation)]
    return "\n\n".join(parts)


def without_notice(text: str) -> str:
    """A text without the notice, for the outputs of tools that are agents on the same model."""
    return text.replace(NOTICE, "").strip()


def readable(output: str) -> str:
    """A tool's output as plain text: of JSON and of Python's lists and dictionaries, a list of their values."""
    value = data_of(output)
    text = output if value is None else "\n".join(_lines(value, 0))
    return text if len(text) <= _LONGEST_OUTPUT else f"{text[:_LONGEST_OUTPUT]}…"


def data_of(output: str) -> Any:
    """The list or dictionary that an output spells in JSON, or as Python does, which is the SDK's way; else None."""
    if output.strip()[:1] not in ("{", "[") or len(output) > _LONGEST_DATA:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(output.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return value if isinstance(value, dict | list) else None
    return None


def _told(call: Call) -> str:
    text = readable(without_notice(call.output)).strip()
    who = f"The tool `{call.name}`" if call.name else "A tool"
    if not text:
        return f"{who} returned nothing."
    return f"{who} returned:\n\n{text}" if "\n" in text else f"{who} returned: {text}"


def _echoed(conversation: Conversation) -> str:
    text = " ".join(conversation.message[: 10 * _QUOTED].split())
    quoted = text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"
    with_files = f" with {conversation.attachments} attachment{'s'[: conversation.attachments - 1]}"
    if not quoted:
        wrote = f"You sent a message without text{with_files if conversation.attachments else ''}."
    else:
        wrote = f"You wrote{with_files if conversation.attachments else ''}: “{quoted}”."
    return f"{wrote} A real LLM would answer here."


def _lines(value: Any, depth: int) -> Iterable[str]:
    """A value as an indented list."""
    if not value or depth > _DEEPEST:
        yield f"{'  ' * depth}{_scalar(value)}"
        return
    pairs = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for name, item in pairs:
        label = "" if name is None else f"{name}:"
        if isinstance(item, dict | list) and item:
            nested = list(_lines(item, depth + 1))
            if label:
                yield f"{'  ' * depth}- {label}"
                yield from nested
            else:
                # The first field stands on the line of the item it belongs to.
                yield f"{'  ' * depth}- {nested[0].strip().removeprefix('- ')}"
                yield from nested[1:]
        else:
            yield f"{'  ' * depth}- {f'{label} ' if label else ''}{_scalar(item)}"


def _scalar(value: Any) -> str:
    match value:
        case None | [] | {}:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)
