"""Reads the content of messages: text, or an array of parts with a type. Errors name the JSON path of the part."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.agent_request import Item

_LISTS = ("content", "tool_calls", "output")


def count_parts(messages: Sequence[Any]) -> int:
    """Returns the number of parts and tool calls of messages or items."""
    lists = (message.get(field) for message in messages if isinstance(message, dict) for field in _LISTS)
    return sum(len(each) for each in lists if isinstance(each, list))


def check_parts(messages: Sequence[Any], name: str, limit: int) -> None:
    """Rejects messages or items that have more than `limit` parts and tool calls together."""
    if count_parts(messages) > limit:
        raise InvalidRequestError(f"'{name}' has more than {limit} parts (max_parts)", param=name)


def convert_parts(content: Any, path: str, convert: Callable[[Mapping[str, Any], str, str], Item]) -> str | list[Item]:
    """Returns a string unchanged, and the parts of an array converted; `convert` receives fields, type and path."""
    if isinstance(content, str):
        return content
    return [convert(part, kind, where) for where, kind, part in _parts(content, path)]


def _parts(content: Any, path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields the path, the type and the fields of each part of an array."""
    if not isinstance(content, list):
        raise json_fields.wrong_type(path, "a string or an array of parts", content)
    for position, part in enumerate(content):
        where = f"{path}[{position}]"
        fields = json_fields.an_object(part, where)
        yield where, json_fields.required_text(fields, "type", f"{where}."), fields


def plain_text(content: Any, path: str, kinds: tuple[str, ...]) -> str:
    """Returns the text of a string, or of an array of parts of these types."""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for where, kind, part in _parts(content, path):
        if kind not in kinds:
            raise InvalidRequestError(
                f"'{where}.type' must not be '{kind[:40]}' in this message", param=f"{where}.type"
            )
        texts.append(json_fields.text(part, "refusal" if kind == "refusal" else "text", f"{where}.") or "")
    return "".join(texts)


def input_file(fields: Mapping[str, Any], path: str) -> Item:
    """Converts the fields of a file to an input item."""
    given = {name: json_fields.text(fields, name, f"{path}.") for name in ("file_data", "file_id", "filename")}
    if not (given["file_data"] or given["file_id"]):
        raise InvalidRequestError(f"'{path}' requires 'file_data' or 'file_id'", param=path)
    return {"type": "input_file", **{name: text for name, text in given.items() if text}}


def last_user_text(items: Sequence[Item]) -> str:
    """Returns the text of the last user message among input items."""
    for item in reversed(items):
        if item.get("role") == "user":
            content = item["content"]
            return content if isinstance(content, str) else "\n".join(p["text"] for p in content if "text" in p)
    return ""
