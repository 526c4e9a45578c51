"""Detects the chat client of a request, to select the rendering of tool activity and reasoning.

The user agent does not identify a chat UI (Open WebUI sends that of its HTTP library), so detection uses other headers
and the request's tools.
"""

from collections.abc import Mapping
from typing import Any

from gateway_core.config.settings import ClientsConfig, RenderingName
from gateway_core.types import Principal

HEADER = "x-agent-gateway-client"
_BY_NAME: Mapping[str, RenderingName] = {
    "openwebui": "openwebui",
    "open-webui": "openwebui",
    "librechat": "reasoning",
    "reasoning": "reasoning",
    "plain": "plain",
}
_BY_HEADER: Mapping[str, RenderingName] = {"x-openwebui-": "openwebui", "x-librechat-": "reasoning"}
# Open WebUI sends its built-in tools with every chat, independent of its header settings.
_OPENWEBUI_TOOLS = frozenset(
    {
        "add_memory",
        "ask_user",
        "calculate_timestamp",
        "get_current_timestamp",
        "list_knowledge_bases",
        "query_knowledge_bases",
        "query_knowledge_files",
        "search_chats",
        "search_knowledge_bases",
        "search_memories",
        "view_chat",
        "view_note",
    }
)
_TOOLS_ENOUGH = 2
# Libraries that reject a response with unknown tool calls or with tool outputs, or that run such a call themselves.
_RUN_EVERY_CALL = ("Agents/Python", "Agents/JavaScript", "ai-sdk/", "pydantic-ai/")


def rendering_for(headers: Mapping[str, str], principal: Principal, tools: Any, config: ClientsConfig) -> RenderingName:
    """Selects the rendering for a request.

    Precedence: the request's header, the operator's setting for the principal, the detected client, the default.

    Args:
        headers: The request headers, by lower-case name.
        principal: The caller.
        tools: The request's `tools` field, not validated.
        config: The settings `[clients]`.
    """
    return _known(headers, principal, tools, config) or config.rendering


def has_tool_items(headers: Mapping[str, str], principal: Principal, tools: Any, config: ClientsConfig) -> bool:
    """Whether a response contains items for the tools that the gateway ran.

    It does not for a client that would run them itself, which includes clients that send tools. Open WebUI sends tools,
    too, but distinguishes them from the gateway's.

    Args:
        headers: The request headers, by lower-case name.
        principal: The caller.
        tools: The request's `tools` field, not validated.
        config: The settings `[clients]`.
    """
    known = _known(headers, principal, tools, config)
    if known is not None:
        return known != "plain"
    agent = headers.get("user-agent", "")
    return not tools and not any(name in agent for name in _RUN_EVERY_CALL)


def _known(headers: Mapping[str, str], principal: Principal, tools: Any, config: ClientsConfig) -> RenderingName | None:
    return (
        _BY_NAME.get(headers.get(HEADER, "").strip().lower())
        or config.principals.get(principal.id)
        or next((name for start, name in _BY_HEADER.items() if any(h.startswith(start) for h in headers)), None)
        or ("openwebui" if has_openwebui_tools(tools) else None)
    )


def has_openwebui_tools(tools: Any) -> bool:
    """Whether a request's tools are those that Open WebUI sends with every chat."""
    if not isinstance(tools, list):
        return False
    names = {_tool_name(tool) for tool in tools}
    return len(names & _OPENWEBUI_TOOLS) >= _TOOLS_ENOUGH


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    # Chat Completions nest the name one level deeper than Responses.
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


HEADERS = ("x-agent-gateway-session", "x-openwebui-chat-id", "x-librechat-conversation-id")
_LONGEST = 256


_USERS = ("x-openwebui-user-id", "x-librechat-user-id")


def user_id(headers: Mapping[str, str]) -> str | None:
    """Returns the id of the chat UI's user: the value of the first known header.

    Args:
        headers: The request headers, by lower-case name.
    """
    found = next((headers[name] for name in _USERS if headers.get(name)), None)
    return found[:_LONGEST] if found else None


def session_id(headers: Mapping[str, str], metadata: Mapping[str, Any]) -> str | None:
    """Returns the chat's id: `metadata.session_id`, or the value of the first known header.

    Args:
        headers: The request headers, by lower-case name.
        metadata: The request's `metadata` field.
    """
    named = metadata.get("session_id")
    found = named if isinstance(named, str) else next((headers[name] for name in HEADERS if headers.get(name)), None)
    return found[:_LONGEST] if found else None
