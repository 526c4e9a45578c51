"""Converts the `messages` of a chat request to input items of the Responses format, which the SDK accepts.

The conversion is strict, because the SDK rejects unknown values only during the run and with less specific errors.
OpenAI's Chat Completions reference defines the fields; `docs/reference/chat-completions.md` documents their handling
here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.activity_rendering import strip_blocks

Item = dict[str, Any]


@frozen
class Conversation:
    """A parsed conversation, as a run accepts it."""

    items: Sequence[Item]
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
    text = ""
    open_calls: dict[str, str] = {}
    for position, message in enumerate(messages):
        path = f"messages[{position}]"
        if not isinstance(message, dict):
            raise json_fields.wrong_type(path, "an object", message)
        match role := json_fields.required_text(message, "role", f"{path}."):
            case "system" | "developer":
                system.append(_plain_text(message, path))
            case "user":
                content = _user_content(message, path)
                text = content if isinstance(content, str) else "\n".join(p["text"] for p in content if "text" in p)
                items.append({"role": "user", "content": content})
            case "assistant":
                items.extend(_assistant(message, path, open_calls))
            case "tool":
                items.append(_tool_result(message, path, open_calls))
            case _:
                raise InvalidRequestError(
                    f"'{path}.role' has the unsupported value '{role[:40]}'",
                    param=f"{path}.role",
                    hint="supported values: system, developer, user, assistant, tool",
                )
    for call_id, path in open_calls.items():
        raise InvalidRequestError(f"the tool call '{call_id}' has no matching message with the role 'tool'", param=path)
    return Conversation(items, "\n\n".join(filter(None, system)) or None, text)


def _plain_text(message: Mapping[str, Any], path: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise json_fields.wrong_type(f"{path}.content", "a string or an array of parts", content)
    return "".join(_text_part(part, f"{path}.content[{i}]", ("text",)) for i, part in enumerate(content))


def _text_part(part: Any, path: str, kinds: tuple[str, ...]) -> str:
    if not isinstance(part, dict):
        raise json_fields.wrong_type(path, "an object", part)
    kind = json_fields.required_text(part, "type", f"{path}.")
    if kind not in kinds:
        raise InvalidRequestError(f"'{path}.type' must not be '{kind[:40]}' in this message", param=f"{path}.type")
    return json_fields.text(part, kind, f"{path}.") or ""


def _user_content(message: Mapping[str, Any], path: str) -> str | list[Item]:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise json_fields.wrong_type(f"{path}.content", "a string or an array of parts", content)
    return [_user_part(part, f"{path}.content[{i}]") for i, part in enumerate(content)]


def _user_part(part: Any, path: str) -> Item:
    if not isinstance(part, dict):
        raise json_fields.wrong_type(path, "an object", part)
    match kind := json_fields.required_text(part, "type", f"{path}."):
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
            file = json_fields.mapping(part, "file", f"{path}.") or {}
            given = {key: json_fields.text(file, key, f"{path}.file.") for key in ("file_data", "file_id", "filename")}
            if not (given["file_data"] or given["file_id"]):
                raise InvalidRequestError(f"'{path}.file' requires 'file_data' or 'file_id'", param=f"{path}.file")
            return {"type": "input_file", **{key: value for key, value in given.items() if value}}
        case _:
            raise InvalidRequestError(
                f"'{path}.type' has the unsupported value '{kind[:40]}'",
                param=f"{path}.type",
                hint="supported values: text, image_url, input_audio, file",
            )


def _assistant(message: Mapping[str, Any], path: str, open_calls: dict[str, str]) -> list[Item]:
    items: list[Item] = []
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(
            _text_part(part, f"{path}.content[{i}]", ("text", "refusal")) for i, part in enumerate(content)
        )
    elif content is not None and not isinstance(content, str):
        raise json_fields.wrong_type(f"{path}.content", "a string, an array of parts or null", content)
    if isinstance(content, str):
        content = strip_blocks(content)
    if content or (content := json_fields.text(message, "refusal", f"{path}.")):
        items.append({"role": "assistant", "content": content})
    for position, call in enumerate(json_fields.listing(message, "tool_calls", f"{path}.") or ()):
        where = f"{path}.tool_calls[{position}]"
        if not isinstance(call, dict):
            raise json_fields.wrong_type(where, "an object", call)
        call_id = json_fields.required_text(call, "id", f"{where}.")
        function = json_fields.mapping(call, "function", f"{where}.") or {}
        items.append(
            {
                "type": "function_call",
                "call_id": call_id,
                "name": json_fields.required_text(function, "name", f"{where}.function."),
                "arguments": json_fields.text(function, "arguments", f"{where}.function.") or "{}",
            }
        )
        open_calls[call_id] = where
    return items


def _tool_result(message: Mapping[str, Any], path: str, open_calls: dict[str, str]) -> Item:
    call_id = json_fields.required_text(message, "tool_call_id", f"{path}.")
    if open_calls.pop(call_id, None) is None:
        raise InvalidRequestError(
            f"'{path}.tool_call_id' does not match an earlier tool call", param=f"{path}.tool_call_id"
        )
    return {"type": "function_call_output", "call_id": call_id, "output": _plain_text(message, path)}
