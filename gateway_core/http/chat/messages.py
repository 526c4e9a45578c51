"""Converts the `messages` of a chat request to input items of the Responses format, which the SDK accepts.

The conversion is strict, because the SDK rejects unknown values only during the run and with less specific errors. Tool
calls and their results are paired again, because clients shorten and merge histories.
OpenAI's Chat Completions reference defines the fields; `docs/reference/chat-completions.md` documents their handling
here.
"""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway_core.http import json_fields
from gateway_core.http.activity_rendering import strip_blocks
from gateway_core.http.agent_request import Item
from gateway_core.http.content_parts import convert_parts, input_file, last_user_text, plain_text
from gateway_core.tools.call_pairs import pair_calls


@frozen
class Conversation:
    """A parsed conversation, as a run accepts it."""

    items: list[Item]
    system: str | None
    """Text of the system and developer messages, which is added to the agent's instructions."""
    text: str
    """Text of the last user message."""


def parse_messages(messages: list[Any]) -> Conversation:
    """Converts a list of messages.

    Raises:
        InvalidRequestError: A message is invalid; `param` is its JSON path.
    """
    items: list[Item] = []
    system: list[str] = []
    for position, message in enumerate(messages):
        path = f"messages[{position}]"
        json_fields.an_object(message, path)
        content, place = message.get("content"), f"{path}.content"
        match role := json_fields.required_text(message, "role", f"{path}."):
            case "system" | "developer":
                system.append(plain_text(content, place, ("text",)))
            case "user":
                items.append({"role": "user", "content": convert_parts(content, place, _user_part)})
            case "assistant":
                items.extend(_assistant(message, path))
            case "tool":
                items.append(_tool_result(message, path))
            case _:
                supported = "system, developer, user, assistant, tool"
                raise json_fields.unsupported_value(f"{path}.role", role, supported=supported)
    return Conversation(pair_calls(items), "\n\n".join(filter(None, system)) or None, last_user_text(items))


def _user_part(part: Mapping[str, Any], kind: str, path: str) -> Item:
    match kind:
        case "text":
            return {"type": "input_text", "text": json_fields.text(part, "text", f"{path}.") or ""}
        case "image_url":
            image = json_fields.mapping(part, "image_url", f"{path}.") or {}
            url = json_fields.required_text(image, "url", f"{path}.image_url.")
            detail = json_fields.text(image, "detail", f"{path}.image_url.") or "auto"
            return {"type": "input_image", "image_url": url, "detail": detail}
        case "input_audio":
            audio = json_fields.mapping(part, "input_audio", f"{path}.") or {}
            data = json_fields.required_text(audio, "data", f"{path}.input_audio.")
            form = json_fields.required_text(audio, "format", f"{path}.input_audio.")
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case "file":
            return input_file(json_fields.mapping(part, "file", f"{path}.") or {}, f"{path}.file")
        case _:
            supported = "text, image_url, input_audio, file"
            raise json_fields.unsupported_value(f"{path}.type", kind, supported=supported)


def _assistant(message: Mapping[str, Any], path: str) -> list[Item]:
    items: list[Item] = []
    content = message.get("content")
    if content is not None:
        content = strip_blocks(plain_text(content, f"{path}.content", ("text", "refusal")))
    if content or (content := json_fields.text(message, "refusal", f"{path}.")):
        items.append({"role": "assistant", "content": content})
    for position, call in enumerate(json_fields.listing(message, "tool_calls", f"{path}.") or ()):
        where = f"{path}.tool_calls[{position}]"
        call_id = json_fields.text(json_fields.an_object(call, where), "id", f"{where}.") or ""
        function = json_fields.mapping(call, "function", f"{where}.") or {}
        items.append(
            {
                "type": "function_call",
                "call_id": call_id,
                "name": json_fields.required_text(function, "name", f"{where}.function."),
                "arguments": json_fields.text(function, "arguments", f"{where}.function.") or "{}",
            }
        )
    return items


def _tool_result(message: Mapping[str, Any], path: str) -> Item:
    call_id = json_fields.text(message, "tool_call_id", f"{path}.") or ""
    output = plain_text(message.get("content"), f"{path}.content", ("text",))
    return {"type": "function_call_output", "call_id": call_id, "output": output}
