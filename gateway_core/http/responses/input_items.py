"""Converts the `input` of a Responses request to input items that work with every upstream.

The conversion is strict, like that in `http/chat/messages.py`: unsupported items are rejected with their path,
including items that only OpenAI's servers can resolve.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.activity_rendering import strip_blocks
from gateway_core.http.chat.messages import Item
from gateway_core.http.responses.item_references import new_id


@frozen
class ApprovalAnswer:
    """An `mcp_approval_response`."""

    request_id: str
    approved: bool
    reason: str | None


@frozen
class ParsedInput:
    """A parsed input, as a run accepts it."""

    items: list[Item] = field(factory=list)
    given: list[Item] = field(factory=list)
    """The items with ids, as OpenAI's `input_items` endpoint lists them."""
    approvals: tuple[ApprovalAnswer, ...] = ()
    system: str | None = None
    """Text of the system and developer messages."""


def parse_input(value: Any, *, max_items: int) -> ParsedInput:
    """Converts a string or an array of items.

    Raises:
        InvalidRequestError: The input has another type or is empty, or an item is invalid; `param` is its JSON path.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("'input' is required and must be a string or a non-empty array", param="input")
    json_fields.check_length(value, "input", max_items)
    items: list[Item] = []
    given: list[Item] = []
    approvals: list[ApprovalAnswer] = []
    system: list[str] = []
    calls: set[str] = set()
    for position, item in enumerate(value):
        path = f"input[{position}]"
        if not isinstance(item, dict):
            raise json_fields.wrong_type(path, "an object", item)
        kind = json_fields.text(item, "type", f"{path}.") or "message"
        given.append({"id": new_id(_PREFIXES.get(kind, "item")), "type": kind, **item})
        match kind:
            case "message":
                _message(item, path, items, system)
            case "function_call":
                call = {
                    "type": "function_call",
                    "call_id": json_fields.required_text(item, "call_id", f"{path}."),
                    "name": json_fields.required_text(item, "name", f"{path}."),
                    "arguments": json_fields.text(item, "arguments", f"{path}.") or "{}",
                }
                calls.add(call["call_id"])
                items.append(call)
            case "function_call_output":
                call_id = json_fields.required_text(item, "call_id", f"{path}.")
                if call_id not in calls:
                    raise InvalidRequestError(
                        f"'{path}.call_id' does not match an earlier function call", param=f"{path}.call_id"
                    )
                items.append({"type": kind, "call_id": call_id, "output": _output(item, path)})
            case "reasoning" | "mcp_approval_request":
                pass  # reasoning is specific to one model; the response names the approval request by id
            case "mcp_approval_response":
                approvals.append(
                    ApprovalAnswer(
                        json_fields.required_text(item, "approval_request_id", f"{path}."),
                        json_fields.boolean(item, "approve", f"{path}.") or False,
                        json_fields.text(item, "reason", f"{path}."),
                    )
                )
            case _:
                raise InvalidRequestError(
                    f"'{path}.type' has the unsupported value '{kind[:40]}'",
                    param=f"{path}.type",
                    code="unsupported",
                )
    return ParsedInput(items, given, tuple(approvals), "\n\n".join(filter(None, system)) or None)


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _message(item: Mapping[str, Any], path: str, items: list[Item], system: list[str]) -> None:
    role = json_fields.required_text(item, "role", f"{path}.")
    content = item.get("content")
    if not isinstance(content, str | list):
        raise json_fields.wrong_type(f"{path}.content", "a string or an array of parts", content)
    match role:
        case "system" | "developer":
            system.append(_text(content, path, ("input_text",)))
        case "assistant":
            text = strip_blocks(_text(content, path, ("output_text", "refusal", "input_text")))
            if text:
                items.append({"role": "assistant", "content": text})
        case "user":
            items.append({"role": "user", "content": _user(content, path)})
        case _:
            raise InvalidRequestError(
                f"'{path}.role' has the unsupported value '{role[:40]}'",
                param=f"{path}.role",
                hint="supported values: user, assistant, system, developer",
            )


def _text(content: str | list[Any], path: str, kinds: tuple[str, ...]) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for position, part in enumerate(content):
        where = f"{path}.content[{position}]"
        kind = _kind(part, where)
        if kind not in kinds:
            raise InvalidRequestError(
                f"'{where}.type' must not be '{kind[:40]}' in this message", param=f"{where}.type"
            )
        texts.append(json_fields.text(part, "refusal" if kind == "refusal" else "text", f"{where}.") or "")
    return "".join(texts)


def _user(content: str | list[Any], path: str) -> str | list[Item]:
    if isinstance(content, str):
        return content
    parts: list[Item] = []
    for position, part in enumerate(content):
        where = f"{path}.content[{position}]"
        match kind := _kind(part, where):
            case "input_text":
                parts.append({"type": kind, "text": json_fields.text(part, "text", f"{where}.") or ""})
            case "input_image":
                if json_fields.text(part, "file_id", f"{where}."):
                    raise InvalidRequestError("images by 'file_id' are not supported", param=f"{where}.file_id")
                url = json_fields.required_text(part, "image_url", f"{where}.")
                detail = json_fields.text(part, "detail", f"{where}.") or "auto"
                parts.append({"type": kind, "image_url": url, "detail": detail})
            case "input_file":
                given = {
                    name: json_fields.text(part, name, f"{where}.") for name in ("file_data", "file_id", "filename")
                }
                if not (given["file_data"] or given["file_id"]):
                    raise InvalidRequestError(f"'{where}' requires 'file_data' or 'file_id'", param=where)
                parts.append({"type": kind, **{name: text for name, text in given.items() if text}})
            case "input_audio":
                parts.append({"type": kind, "input_audio": json_fields.mapping(part, "input_audio", f"{where}.") or {}})
            case _:
                raise InvalidRequestError(
                    f"'{where}.type' has the unsupported value '{kind[:40]}'",
                    param=f"{where}.type",
                    hint="supported values: input_text, input_image, input_file, input_audio",
                )
    return parts


def _kind(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise json_fields.wrong_type(where, "an object", part)
    return json_fields.required_text(part, "type", f"{where}.")


def _output(item: Mapping[str, Any], path: str) -> str:
    output = item.get("output")
    if isinstance(output, str):
        return output
    if not isinstance(output, list):
        raise json_fields.wrong_type(f"{path}.output", "a string or an array of parts", output)
    return _text(output, path, ("input_text", "output_text"))
