"""Which client asks, as far as it can be known: it decides the form in which tool activity and reasoning are shown.

It renders nothing. A user agent identifies no chat UI (Open WebUI's is that of its HTTP library), so other marks count.
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
# Open WebUI sends its built-in tools with every chat, whatever its settings say about headers.
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
# Libraries that refuse a response with calls of tools that they do not know, or with outputs, or answer such a call.
_RUN_EVERY_CALL = ("Agents/Python", "Agents/JavaScript", "ai-sdk/", "pydantic-ai/")


def rendering_for(headers: Mapping[str, str], principal: Principal, tools: Any, config: ClientsConfig) -> RenderingName:
    """The form for a request: what its header asks for, else what the operator set for the key's owner, else what the
    client is recognised by, else the default.

    Args:
        headers: The request's, by lower-case names.
        principal: Who asks.
        tools: The request's `tools`, unchecked.
        config: The operator's settings.
    """
    return _known(headers, principal, tools, config) or config.rendering


def has_tool_items(headers: Mapping[str, str], principal: Principal, tools: Any, config: ClientsConfig) -> bool:
    """Whether tools that ran become items of a response; not for a client that would take them for its own to run, as
    one does that brings tools. Open WebUI, which brings some, too, tells them apart.

    Args:
        headers: The request's, by lower-case names.
        principal: Who asks.
        tools: The request's `tools`, unchecked.
        config: The operator's settings.
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
        or ("openwebui" if _has_openwebui_tools(tools) else None)
    )


def _has_openwebui_tools(tools: Any) -> bool:
    if not isinstance(tools, list):
        return False
    names = {_tool_name(tool) for tool in tools}
    return len(names & _OPENWEBUI_TOOLS) >= _TOOLS_ENOUGH


def _tool_name(tool: Any) -> str | None:
    if not isinstance(tool, dict):
        return None
    # Chat completions have the name one level deeper than responses.
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


HEADERS = ("x-agent-gateway-session", "x-openwebui-chat-id", "x-librechat-conversation-id")
_LONGEST = 256


def session_id(headers: Mapping[str, str], metadata: Mapping[str, Any]) -> str | None:
    """The id of the chat: `metadata.session_id`, else what a header says.

    Args:
        headers: The request's, by lower-case names.
        metadata: The request's `metadata`.
    """
    named = metadata.get("session_id")
    found = named if isinstance(named, str) else next((headers[name] for name in HEADERS if headers.get(name)), None)
    return found[:_LONGEST] if found else None
