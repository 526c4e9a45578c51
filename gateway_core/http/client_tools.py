"""Parses the tools of a request that run in the client, and names those that are ignored in a response header.

Only agents that accept them get the tools; the names and schemas are those of an untrusted client. The two APIs differ
in the nesting of a tool's fields.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway_core.errors import InvalidRequestError
from gateway_core.http import json_fields
from gateway_core.http.client_detection import has_openwebui_tools
from gateway_core.types import ClientTool, ClientToolOffer

HEADER = "x-agent-gateway-ignored-tools"
ALL = "*"
FIELDS = ("tools", "tool_choice", "parallel_tool_calls", "functions")
MAX_TOOL_BYTES = 256 * 1024
_MAX_NAMED = 20
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = "none, auto, required, or an object that names a tool"


def ignored_tools(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns `*` if a request contains tools, except those that a chat UI sends with every request."""
    given = body.get("tools") or body.get("functions")
    return (ALL,) if given and not has_openwebui_tools(given) else ()


def parse_client_tools(body: Mapping[str, Any]) -> tuple[ClientToolOffer, tuple[str, ...]]:
    """Returns the function tools of a request, and the names of its other tools, which are not supported.

    Raises:
        InvalidRequestError: A tool or the choice of a tool is invalid, or the tools are too large.
    """
    tools: dict[str, ClientTool] = {}
    ignored = ["functions"] if body.get("functions") else []
    given = json_fields.listing(body, "tools") or []
    if len(orjson.dumps(given)) > MAX_TOOL_BYTES:
        raise InvalidRequestError(f"'tools' is larger than {MAX_TOOL_BYTES // 1024} KiB", param="tools")
    for position, value in enumerate(given):
        path = f"tools[{position}]"
        kind = json_fields.required_text(json_fields.an_object(value, path), "type", f"{path}.")
        if kind != "function":
            ignored.append(str(value.get("name") or kind))
            continue
        tool = _parse_tool(value, path)
        if tool.name in tools:
            raise InvalidRequestError(f"'{path}' has the same name as an earlier tool: '{tool.name}'", param=path)
        tools[tool.name] = tool
    choice, names = _parse_choice(body.get("tool_choice"), tools)
    return ClientToolOffer(
        tuple(tool for tool in tools.values() if tool.name in names),
        choice if names else None,
        json_fields.boolean(body, "parallel_tool_calls"),
    ), tuple(ignored)


def header(ignored: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Returns the response header that names ignored tools; empty without any."""
    names = [name for name in dict.fromkeys(ignored) if name == ALL or _NAME.fullmatch(name)]
    if not names:
        return []
    shown = ALL if ALL in names else ", ".join(names[:_MAX_NAMED] + ["..."] * (len(names) > _MAX_NAMED))
    return [(HEADER.encode(), shown.encode())]


def _parse_tool(value: Mapping[str, Any], path: str) -> ClientTool:
    # Chat Completions nest the fields of a function one level deeper than Responses.
    if "function" in value:
        path = f"{path}.function"
        value = json_fields.an_object(value["function"], path)
    name = json_fields.required_text(value, "name", f"{path}.")
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"'{path}.name' must consist of 1 to 64 letters, digits, underscores and hyphens", param=f"{path}.name"
        )
    parameters = json_fields.mapping(value, "parameters", f"{path}.") or {"type": "object", "properties": {}}
    if parameters.get("type", "object") != "object":
        raise InvalidRequestError(
            f"'{path}.parameters' must be a JSON Schema of the type 'object'", param=f"{path}.parameters"
        )
    return ClientTool(
        name,
        json_fields.text(value, "description", f"{path}.") or "",
        parameters,
        json_fields.boolean(value, "strict", f"{path}.") or False,
    )


def _parse_choice(value: Any, tools: Mapping[str, ClientTool]) -> tuple[str | None, Iterable[str]]:
    """Returns the choice for the model, and the names of the tools to offer."""
    match value:
        case None | "auto":
            return None, tools
        case "none":
            return None, ()
        case "required":
            return "required", tools
        case {"type": "function"}:
            name = _chosen(value, "tool_choice", tools)
            return name, tools
        case {"type": "allowed_tools"}:
            allowed = value.get("allowed_tools", value)
            path = "tool_choice.allowed_tools" if "allowed_tools" in value else "tool_choice"
            allowed = json_fields.an_object(allowed, path)
            mode = json_fields.one_of(allowed, "mode", ("auto", "required"), f"{path}.")
            names = [
                _chosen(json_fields.an_object(each, f"{path}.tools[{i}]"), f"{path}.tools[{i}]", tools)
                for i, each in enumerate(json_fields.listing(allowed, "tools", f"{path}.") or ())
            ]
            return "required" if mode == "required" else None, names
        case str():
            raise json_fields.unsupported_value("tool_choice", value, supported=_CHOICES)
        case dict():
            kind = json_fields.required_text(value, "type", "tool_choice.")
            raise json_fields.unsupported_value("tool_choice.type", kind, supported="function, allowed_tools")
        case _:
            raise json_fields.wrong_type("tool_choice", "a string or an object", value)


def _chosen(value: Mapping[str, Any], path: str, tools: Mapping[str, ClientTool]) -> str:
    if "function" in value:
        path = f"{path}.function"
        value = json_fields.an_object(value["function"], path)
    name = json_fields.required_text(value, "name", f"{path}.")
    if name not in tools:
        raise InvalidRequestError(f"'{path}.name' is not the name of a function in 'tools'", param=f"{path}.name")
    return name
