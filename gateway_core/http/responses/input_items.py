"""Converts the `input` of a Responses request to input items that work with every upstream.

The conversion is strict, like that in `http/chat/messages.py`: unsupported items are rejected with their path,
including items that only OpenAI's servers can resolve.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.activity_rendering import strip_blocks
from gateway_core.http.agent_request import Item
from gateway_core.http.content_parts import check_parts, convert_parts, input_file, plain_text
from gateway_core.http.responses.item_ids import new_id


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


def parse_input(value: Any, limits: HttpConfig) -> ParsedInput:
    """Converts a string or an array of items.

    Raises:
        InvalidRequestError: The input has another type or is empty, or an item is invalid; `param` is its JSON path.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("'input' is required and must be a string or a non-empty array", param="input")
    json_fields.check_length(value, "input", limits.max_messages)
    check_parts(value, "input", limits.max_parts)
    items: list[Item] = []
    given: list[Item] = []
    approvals: list[ApprovalAnswer] = []
    system: list[str] = []
    for position, item in enumerate(value):
        path = f"input[{position}]"
        json_fields.an_object(item, path)
        kind = json_fields.text(item, "type", f"{path}.") or "message"
        named = json_fields.text(item, "id", f"{path}.")
        given.append({**item, "id": named or new_id(_PREFIXES.get(kind, "item")), "type": kind})
        match kind:
            case "message":
                _message(item, path, items, system)
            case "function_call":
                call = {
                    "type": "function_call",
                    "call_id": json_fields.text(item, "call_id", f"{path}.") or "",
                    "name": json_fields.required_text(item, "name", f"{path}."),
                    "arguments": json_fields.text(item, "arguments", f"{path}.") or "{}",
                }
                items.append(call)
            case "function_call_output":
                call_id = json_fields.text(item, "call_id", f"{path}.") or ""
                output = plain_text(item.get("output"), f"{path}.output", ("input_text", "output_text"))
                items.append({"type": kind, "call_id": call_id, "output": output})
            case "reasoning" | "mcp_approval_request":
                pass  # reasoning is specific to one model; the response names the approval request by id
            case _ if kind in _HOSTED:
                pass  # only the server that ran the tool knows the item, and the text that follows contains the result
            case "mcp_approval_response":
                approvals.append(
                    ApprovalAnswer(
                        json_fields.required_text(item, "approval_request_id", f"{path}."),
                        json_fields.boolean(item, "approve", f"{path}.") or False,
                        json_fields.text(item, "reason", f"{path}."),
                    )
                )
            case _:
                raise json_fields.unsupported_value(f"{path}.type", kind)
    return ParsedInput(items, given, tuple(approvals), "\n\n".join(filter(None, system)) or None)


_HOSTED = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "web_search_call",
    }
)
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "mcp_approval_response": "mcpr",
    "reasoning": "rs",
}


def _message(item: Mapping[str, Any], path: str, items: list[Item], system: list[str]) -> None:
    role = json_fields.required_text(item, "role", f"{path}.")
    content, place = item.get("content"), f"{path}.content"
    match role:
        case "system" | "developer":
            system.append(plain_text(content, place, ("input_text",)))
        case "assistant":
            text = strip_blocks(plain_text(content, place, ("output_text", "refusal", "input_text")))
            if text:
                items.append({"role": "assistant", "content": text})
        case "user":
            items.append({"role": "user", "content": convert_parts(content, place, _user_part)})
        case _:
            supported = "user, assistant, system, developer"
            raise json_fields.unsupported_value(f"{path}.role", role, supported=supported)


def _user_part(part: Mapping[str, Any], kind: str, path: str) -> Item:
    match kind:
        case "input_text":
            return {"type": kind, "text": json_fields.text(part, "text", f"{path}.") or ""}
        case "input_image":
            if json_fields.text(part, "file_id", f"{path}."):
                raise InvalidRequestError("images by 'file_id' are not supported", param=f"{path}.file_id")
            url = json_fields.required_text(part, "image_url", f"{path}.")
            detail = json_fields.text(part, "detail", f"{path}.") or "auto"
            return {"type": kind, "image_url": url, "detail": detail}
        case "input_file":
            return input_file(part, path)
        case "input_audio":
            return {"type": kind, "input_audio": json_fields.mapping(part, "input_audio", f"{path}.") or {}}
        case _:
            supported = "input_text, input_image, input_file, input_audio"
            raise json_fields.unsupported_value(f"{path}.type", kind, supported=supported)
