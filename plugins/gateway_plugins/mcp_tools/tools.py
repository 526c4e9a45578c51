"""Converts a server's tools to the SDK's function tools, under names that are valid for models.

`calls.py` makes the calls; the gateway authorizes them.
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
from gateway_plugins.mcp_tools.error_mapping import McpCallError
from gateway_plugins.mcp_tools.tool_catalog import ListedTool

MAX_NAME = 64
_BACKSTOP_SECONDS = 1.0

Call = Callable[[str, Mapping[str, Any], str], Awaitable[Any]]
"""Calls a tool: its name, the arguments, and the call's id."""


def names(prefix: str, tools: Iterable[str]) -> dict[str, str]:
    """Map a server's tool names to the names that models see.

    A name that is too long or already taken gets a digest of the server's name as a suffix. A name without special
    characters is assigned first, so that no other tool can take it.
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
    name: str, listed: ListedTool, server: str, call: Call, *, seconds: float, is_open: bool
) -> FunctionTool:
    """Build the function tool for a listed tool.

    Args:
        name: Name that models see.
        listed: The tool as the server lists it.
        server: Name of the server, for policies.
        call: Makes the call.
        seconds: Maximum duration of a call, including the wait for a session.
        is_open: Whether the tool may be called when every policy abstains.
    """

    async def invoke(context: ToolContext[Any], text: str) -> Any:
        try:
            arguments = json.loads(text or "{}")
        except ValueError:
            raise McpCallError("The arguments are not valid JSON.") from None
        if not isinstance(arguments, dict):
            raise McpCallError("The arguments are not a JSON object.")
        return await call(listed.name, arguments, context.tool_call_id)

    tool = FunctionTool(
        name=name,
        description=listed.description,
        params_json_schema=listed.parameters,
        on_invoke_tool=with_function_tool_failure_error_handler(invoke, lambda *_: None),
        strict_json_schema=False,
        # The SDK's timeout is a backstop: the call's own timeout comes first, and has a better message.
        timeout_seconds=seconds + _BACKSTOP_SECONDS,
    )
    set_function_tool_failure_error_function(tool, _failure)
    mark_tool(tool, ToolOrigin("mcp", server=server, open=is_open))
    return tool


def _failure(context: Any, error: Exception) -> str:
    return str(error) if isinstance(error, McpCallError) else default_tool_error_function(context, error)
