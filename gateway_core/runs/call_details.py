"""Reads the tool calls and outputs of the SDK, whose fields depend on the kind of the tool.

The kinds are those of the Responses API: functions, custom tools, shells, patches, computers, and the hosted tools,
which the model's server runs.
"""

import json
from collections.abc import Mapping
from typing import Any

from gateway_core.runs.run_events import Media

HOSTED_CALLS = frozenset(
    {"code_interpreter_call", "file_search_call", "image_generation_call", "mcp_call", "web_search_call"}
)
"""Types of the calls whose item also contains the output, because the model's server ran the tool."""
_INPUTS = ("action", "actions", "operation", "code", "queries", "input", "revised_prompt")
"""Fields that contain what the model asks of a tool, other than `arguments`."""
_IMAGE_FORMATS = frozenset({"gif", "jpeg", "png", "svg+xml", "webp"})


def get(raw: Any, name: str) -> Any:
    """Return a field of an item, which is a dictionary or an object; `None` if it is missing."""
    return raw.get(name) if isinstance(raw, Mapping) else getattr(raw, name, None)


def call_id(raw: Any) -> str:
    """Return the id by which an output names its call."""
    return get(raw, "call_id") or get(raw, "id") or ""


def call_name(raw: Any, name: str | None = None) -> str:
    """Return the name of a call's tool.

    Args:
        raw: The call.
        name: The name that the SDK resolved, if any. Calls of built-in tools contain only their type.
    """
    return name or get(raw, "name") or (get(raw, "type") or "").removesuffix("_call") or "tool"


def call_arguments(raw: Any) -> str:
    """Return what the model asks of the tool, as JSON: arguments, commands, a patch, code or queries."""
    arguments = get(raw, "arguments")
    if isinstance(arguments, str):
        return arguments or "{}"
    if arguments is not None:
        return json.dumps(as_plain(arguments), ensure_ascii=False)
    given = {name: as_plain(value) for name in _INPUTS if (value := get(raw, name)) is not None}
    if isinstance(action := given.get("action"), dict):
        action.pop("sources", None)  # the result of a search
    # One object, such as a shell's action, needs no name for itself.
    [only] = given.values() if len(given) == 1 else [given]
    return json.dumps(only if isinstance(only, dict) else given, ensure_ascii=False)


def hosted_output(raw: Any) -> str:
    """Return the output of a hosted tool as text; empty if its item does not contain one."""
    match get(raw, "type"):
        case "web_search_call":
            sources = get(get(raw, "action"), "sources") or ()
            return "\n".join(filter(None, (get(source, "url") for source in sources)))
        case "file_search_call":
            results = get(raw, "results") or ()
            return "\n".join(f"{get(result, 'filename')}: {get(result, 'text')}" for result in results)
        case "code_interpreter_call":
            outputs = get(raw, "outputs") or ()
            return "\n".join(get(output, "logs") or f"[{get(output, 'type')}]" for output in outputs)
        case "image_generation_call" if get(raw, "result"):
            return "[image]"
    for name in ("error", "output", "result"):
        if value := get(raw, name):
            value = as_plain(value)
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ""


def hosted_media(raw: Any) -> tuple[Media, ...]:
    """Return the images that a hosted tool made."""
    if get(raw, "type") == "image_generation_call" and (result := get(raw, "result")):
        name = str(get(raw, "output_format") or "png").removeprefix("image/")
        name = {"jpg": "jpeg", "svg": "svg+xml"}.get(name, name)
        kind = name if name in _IMAGE_FORMATS else "png"
        return _media("image", result if result.startswith("data:") else f"data:image/{kind};base64,{result}")
    images = (output for output in get(raw, "outputs") or () if get(output, "type") == "image")
    return tuple(medium for output in images for medium in _media("image", get(output, "url")))


def output_media(output: Any) -> tuple[Media, ...]:
    """Return the images and files in the output of a tool that ran here, other than a computer's screenshots."""
    found: list[Media] = []
    for part in output if isinstance(output, list | tuple) else [output]:
        match get(part, "type"):
            case "image":
                found += _media("image", get(part, "image_url"))
            case "file":
                url = get(part, "file_url") or get(part, "file_data")
                found += _media("file", url, str(get(part, "filename") or ""))
    return tuple(found)


def is_hosted_output(raw: Any) -> bool:
    """Whether the model's server made an output. It gives its items an id; those that are made here have none."""
    return get(raw, "id") is not None


def as_plain(value: Any) -> Any:
    """Return a value of the SDK or of the `openai` package as JSON-serializable values, without empty fields."""
    if isinstance(value, Mapping):
        return {name: as_plain(field) for name, field in value.items() if field is not None}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True, warnings=False) if callable(dump) else value


def _media(kind: Any, url: Any, name: str = "") -> tuple[Media, ...]:
    return (Media(kind, url, name),) if isinstance(url, str) and url else ()
