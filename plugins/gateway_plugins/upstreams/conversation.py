"""Prepares a conversation for a chat upstream: ids of calls, images of tools, reasoning that a model wants back.

The Chat Completions API has no images in tool messages, and no field for reasoning; servers differ in the latter.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from agents.models.reasoning_content_replay import ReasoningContentReplayContext

from gateway_plugins.upstreams.dialect import objects, plain_text

Replay = Literal["auto", "reasoning_content", "none"]

# Servers that reject a tool call in the history without the reasoning that led to it, by parts of a model or a host.
_WANT_REASONING = ("deepseek", "kimi", "moonshot", "mimo", "glm-", "zhipu", "bigmodel", "z.ai")


def replay_rule(replay: Replay, model: str, base_url: str) -> Callable[[ReasoningContentReplayContext], bool]:
    """Return the rule by which the SDK's chat model sends reasoning back.

    Args:
        replay: The setting of the upstream.
        model: The name of the model at the upstream.
        base_url: The upstream's.
    """
    known = any(part in f"{model} {base_url}".casefold() for part in _WANT_REASONING)
    wanted = replay == "reasoning_content" or (replay == "auto" and known)

    def should_replay(context: ReasoningContentReplayContext) -> bool:
        # Reasoning of another model, such as one before a handoff, does not belong to this one.
        return wanted and context.reasoning.origin_model in (None, model)

    return should_replay


def with_media(items: Any) -> Any:
    """Move the images and the data of files in tool outputs to a user message behind them; URLs of files become text.

    Args:
        items: The input of a model call: text, or items of the Responses format; not modified.
    """
    if not isinstance(items, list) or not any(_media(item) for item in items):
        return items
    moved: list[Any] = []
    waiting: list[Mapping[str, Any]] = []
    for item in [*items, None]:
        media = _media(item)
        if waiting and not (isinstance(item, Mapping) and item.get("type") == "function_call_output"):
            text = {"type": "input_text", "text": "Images and files from the tool outputs above:"}
            moved.append({"role": "user", "content": [text, *waiting]})
            waiting = []
        if media:
            kept = [part for part in item["output"] if part not in media]
            for part in media:
                kind, name = part["type"].removeprefix("input_"), part.get("filename") or ""
                place = part.get("file_url") or "in the next user message"
                kept.append({"type": "input_text", "text": f"[{kind} {name}: {place}]".replace(" :", ":")})
            moved.append({**item, "output": kept})
            waiting += [part for part in media if not part.get("file_url")]
        elif item is not None:
            moved.append(item)
    return moved


def _media(item: Any) -> list[Mapping[str, Any]]:
    output = item.get("output") if isinstance(item, Mapping) and item.get("type") == "function_call_output" else None
    if not isinstance(output, list):
        return []
    return [part for part in output if isinstance(part, Mapping) and part.get("type") in ("input_image", "input_file")]


def call_ids(messages: Iterable[Any]) -> set[str]:
    """The ids of the tool calls in a conversation, as chat messages."""
    return {
        str(call.get("id"))
        for message in messages
        if isinstance(message, Mapping)
        for call in objects(message.get("tool_calls"))
    }


def repair_pairs(messages: Sequence[Any]) -> list[Any]:
    """Make each tool call of a conversation answered by exactly one tool message directly behind, with a unique id.

    Clients' histories and stored memories may contain calls without ids, or ids that repeat; OpenAI rejects both.

    Args:
        messages: Chat messages; not modified.
    """
    repaired: list[Any] = []
    taken: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop(0)
        if _role(message) == "tool":
            # Behind no call: OpenAI rejects such a message, and its content must not be lost.
            repaired.append({"role": "user", "content": f"Result of a tool: {message.get('content')}"})
            continue
        calls = [dict(call) for call in objects(message.get("tool_calls"))] if _role(message) == "assistant" else []
        if not calls:
            repaired.append(_without_calls(message))
            continue
        results = [_take_result(waiting, call, only=len(calls) == 1) for call in calls]
        for call in calls:
            given = plain_text(call.get("id"))
            call["id"] = given if given and given not in taken else f"call_{uuid.uuid4().hex[:24]}"
            taken.add(call["id"])
        repaired.append({**message, "tool_calls": calls})
        missing = {"role": "tool", "content": "(no result)"}
        repaired += [
            {**(result or missing), "tool_call_id": call["id"]} for call, result in zip(calls, results, strict=True)
        ]
    return repaired


def _without_calls(message: Any) -> Any:
    """A message without an empty list of calls, which OpenAI rejects."""
    if not isinstance(message, Mapping) or "tool_calls" not in message:
        return message
    return {key: value for key, value in message.items() if key != "tool_calls"}


def _take_result(waiting: list[Any], call: Mapping[str, Any], *, only: bool) -> dict[str, Any] | None:
    """Remove the result of a call from the messages behind it.

    Args:
        waiting: The messages behind the call.
        call: The call.
        only: Whether it is the only call of its message, so that a result directly behind it is its own.
    """
    given = plain_text(call.get("id"))
    for position, message in enumerate(waiting):
        if _role(message) == "tool":
            if (only and position == 0) or plain_text(message.get("tool_call_id")) == given:
                return dict(waiting.pop(position))
        elif isinstance(message, Mapping) and message.get("tool_calls"):
            return None  # another round: its results are its own
    return None


def _role(message: Any) -> str | None:
    return message.get("role") if isinstance(message, Mapping) else None
