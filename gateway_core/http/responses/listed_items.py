"""Converts input items, as the client sent them, to the form in which OpenAI's API lists them.

A client may leave out ids, types and statuses, and may send a text instead of a list of parts. A listed item has all of
them, so that typed clients can read it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Item = dict[str, Any]

_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "function_call": {"call_id": "", "arguments": "{}", "status": "completed"},
    "function_call_output": {"call_id": "", "output": "", "status": "completed"},
    "reasoning": {"summary": [], "status": "completed"},
    "mcp_approval_response": {"approve": False},
}
"""The fields that an item of each type has, with their values where the client omitted them."""


def listed_item(item: Mapping[str, Any]) -> Item:
    """Returns a validated input item in the form of OpenAI's API.

    Args:
        item: An item with an id and a type.
    """
    kind = item["type"]
    if kind == "message":
        return _message(item)
    defaults = _FIELDS.get(kind, {})
    listed = {**item, **{name: value for name, value in defaults.items() if item.get(name) is None}}
    if kind == "function_call_output" and not isinstance(listed["output"], str):
        listed["output"] = [_input_part(part) for part in listed["output"]]
    return listed


def _message(item: Mapping[str, Any]) -> Item:
    convert = _output_part if item["role"] == "assistant" else _input_part
    return {**item, "content": [convert(part) for part in _parts(item["content"])], "status": "completed"}


def _parts(content: Any) -> Iterable[Mapping[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or ()


def _input_part(part: Mapping[str, Any]) -> Item:
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            return {"type": "input_text", "text": part.get("text") or ""}
        case "input_image":
            return {**part, "detail": part.get("detail") or "auto"}
        case _:
            return {**part}


def _output_part(part: Mapping[str, Any]) -> Item:
    if part.get("type") == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal") or ""}
    kept = {name: part.get(name) or [] for name in ("annotations", "logprobs")}
    return {"type": "output_text", "text": part.get("text") or "", **kept}
