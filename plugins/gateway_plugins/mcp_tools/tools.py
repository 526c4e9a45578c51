"""A server's tools as the SDK's function tools, under names that models may see.

What a call does is the server's (`server/hypercorn.py`); who may make it, the gateway's.
"""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from agents import FunctionTool
from agents.tool import (
    default_tool_error_function,
    set_function_tool_failure_error_function,
    with_function_tool_failure_error_handler,
)
from agents.tool_context import ToolContext

from gateway_core import ToolOrigin, mark_tool
from gateway_plugins.mcp_tools.failures import McpCallError
from gateway_plugins.mcp_tools.listing import Listed

MAX_NAME = 64
_BEYOND_SECONDS = 1.0

Call = Callable[[str, Mapping[str, Any], str], Awaitable[Any]]
"""Calls a tool: its name, the arguments, and the call's id."""


def names(prefix: str, tools: Iterable[str]) -> dict[str, str]:
    """What models call a server's tools, by the server's own names for them.

    A name that models could not see, or that another tool has, gets a digest of the server's name for it. A tool whose
    own name needs no change always keeps it, so that no other can take its place.
    """
    given = sorted(set(tools))
    taken: dict[str, str] = {}
    for name in sorted(given, key=lambda n: re.sub(r"[^A-Za-z0-9_-]", "_", n) != n):
        plain = f"{prefix}__{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
        if len(plain) > MAX_NAME or plain in taken:
            digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
            plain = f"{plain[: MAX_NAME - 9]}_{digest}"
        taken[plain] = name
    return {name: plain for plain, name in taken.items()}


def as_function_tool(
    name: str, listed: Listed, server: str, call: Call, *, seconds: float, is_open: bool
) -> FunctionTool:
    """A tool for agents.

    Args:
        name: What models call it.
        listed: As the server lists it.
        server: What policies know its server by.
        call: Makes the call.
        seconds: How long a call may take in all.
        is_open: Whether it may be called when no policy has an opinion on it.
    """

    async def invoke(context: ToolContext[Any], text: str) -> Any:
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            raise McpCallError("The arguments are no JSON.") from None
        if not isinstance(arguments, dict):
            raise McpCallError("The arguments are no JSON object.")
        return await call(listed.name, arguments, context.tool_call_id)

    tool = FunctionTool(
        name=name,
        description=listed.description,
        params_json_schema=listed.parameters,
        on_invoke_tool=with_function_tool_failure_error_handler(invoke, lambda *_: None),
        strict_json_schema=False,
        # The SDK's limit would say less than the call's own; it is the one behind it.
        timeout_seconds=seconds + _BEYOND_SECONDS,
    )
    set_function_tool_failure_error_function(tool, _failure)
    mark_tool(tool, ToolOrigin("mcp", server=server, open=is_open))
    return tool


def _failure(context: Any, error: Exception) -> str:
    return str(error) if isinstance(error, McpCallError) else default_tool_error_function(context, error)
