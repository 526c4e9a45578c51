"""Which chat a request belongs to, when its client says so: chat UIs do in headers, programs in `metadata`.

It trusts nothing: a chat's id means something only together with the principal that sent it.
"""

from collections.abc import Mapping
from typing import Any

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
