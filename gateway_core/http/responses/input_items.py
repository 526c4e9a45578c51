"""The `input` of a Responses request becomes input items that the SDK takes on every upstream.

Pure JSON to JSON, strict like `conversation.py`: an item that nothing here understands is refused by its path. Items
that only OpenAI's own servers can resolve, such as references, are refused, too.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.activity_rendering import without_blocks
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
    """An input as a run takes it."""

    items: list[Item] = field(factory=list)
    given: list[Item] = field(factory=list)
    """The items with ids, as OpenAI lists them."""
    approvals: tuple[ApprovalAnswer, ...] = ()
    system: str | None = None
    """What system and developer messages say."""


def parse_input(value: Any, *, max_items: int) -> ParsedInput:
    """Convert a string or a list of items.

    Raises:
        InvalidRequestError: It is neither, is empty, or an item cannot be understood; `param` is its JSON path.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("'input' is required, as a string or a list of at least one item", param="input")
    json_fields.few_enough(value, "input", max_items)
    items: list[Item] = []
    given: list[Item] = []
    approvals: list[ApprovalAnswer] = []
    system: list[str] = []
    calls: set[str] = set()
    for position, item in enumerate(value):
        path = f"input[{position}]"
        if not isinstance(item, dict):
            raise json_fields.wrong(path, "an object", item)
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
                        f"'{path}.call_id' answers no function call before it", param=f"{path}.call_id"
                    )
                items.append({"type": kind, "call_id": call_id, "output": _output(item, path)})
            case "reasoning" | "mcp_approval_request":
                pass  # what a model thought is its own; a question is answered by its id
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
                    f"'{path}.type' is '{kind[:40]}', which is not supported here",
                    param=f"{path}.type",
                    code="unsupported",
                )
    return ParsedInput(items, given, tuple(approvals), "\n\n".join(filter(None, system)) or None)


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def _message(item: Mapping[str, Any], path: str, items: list[Item], system: list[str]) -> None:
    role = json_fields.required_text(item, "role", f"{path}.")
    content = item.get("content")
    if not isinstance(content, str | list):
        raise json_fields.wrong(f"{path}.content", "a string or a list of parts", content)
    match role:
        case "system" | "developer":
            system.append(_text(content, path, ("input_text",)))
        case "assistant":
            text = without_blocks(_text(content, path, ("output_text", "refusal", "input_text")))
            if text:
                items.append({"role": "assistant", "content": text})
        case "user":
            items.append({"role": "user", "content": _user(content, path)})
        case _:
            raise InvalidRequestError(
                f"'{path}.role' is '{role[:40]}'",
                param=f"{path}.role",
                hint="one of user, assistant, system, developer",
            )


def _text(content: str | list[Any], path: str, kinds: tuple[str, ...]) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for position, part in enumerate(content):
        where = f"{path}.content[{position}]"
        kind = _kind(part, where)
        if kind not in kinds:
            raise InvalidRequestError(f"'{where}.type' cannot be '{kind[:40]}' in this message", param=f"{where}.type")
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
                    raise InvalidRequestError(f"'{where}' needs 'file_data' or 'file_id'", param=where)
                parts.append({"type": kind, **{name: text for name, text in given.items() if text}})
            case "input_audio":
                parts.append({"type": kind, "input_audio": json_fields.mapping(part, "input_audio", f"{where}.") or {}})
            case _:
                raise InvalidRequestError(
                    f"'{where}.type' is '{kind[:40]}'",
                    param=f"{where}.type",
                    hint="one of input_text, input_image, input_file and input_audio",
                )
    return parts


def _kind(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise json_fields.wrong(where, "an object", part)
    return json_fields.required_text(part, "type", f"{where}.")


def _output(item: Mapping[str, Any], path: str) -> str:
    output = item.get("output")
    if isinstance(output, str):
        return output
    if not isinstance(output, list):
        raise json_fields.wrong(f"{path}.output", "a string or a list of parts", output)
    return _text(output, path, ("input_text", "output_text"))
