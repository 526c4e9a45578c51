"""Prepares a conversation for a chat upstream: images of tools, and the reasoning that a model wants back.

The Chat Completions API has no images in tool messages, and no field for reasoning; servers differ in the latter.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from agents.models.reasoning_content_replay import ReasoningContentReplayContext

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


def with_images(items: Any) -> Any:
    """Move the images in tool outputs to a user message behind them.

    Args:
        items: The input of a model call: text, or items of the Responses format; not modified.
    """
    if not isinstance(items, list) or not any(_images(item) for item in items):
        return items
    moved: list[Any] = []
    waiting: list[Mapping[str, Any]] = []
    for item in [*items, None]:
        images = _images(item)
        if waiting and not (isinstance(item, Mapping) and item.get("type") == "function_call_output"):
            text = {"type": "input_text", "text": "Images from the tool outputs above:"}
            moved.append({"role": "user", "content": [text, *waiting]})
            waiting = []
        if images:
            kept = [part for part in item["output"] if part not in images]
            kept.append({"type": "input_text", "text": f"[{len(images)} image(s), in the next user message]"})
            moved.append({**item, "output": kept})
            waiting += images
        elif item is not None:
            moved.append(item)
    return moved


def _images(item: Any) -> list[Mapping[str, Any]]:
    output = item.get("output") if isinstance(item, Mapping) and item.get("type") == "function_call_output" else None
    if not isinstance(output, list):
        return []
    return [part for part in output if isinstance(part, Mapping) and part.get("type") == "input_image"]
