"""Prepares a conversation for a chat upstream: images of tools, and reasoning that a model wants back.

The Chat Completions API has no images in tool messages, and no field for reasoning; servers differ in the latter.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from agents.models.reasoning_content_replay import ReasoningContentReplayContext

from gateway_plugins.upstreams.tool_calls import objects

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
