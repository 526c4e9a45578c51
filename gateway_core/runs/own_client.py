"""Recognizes failures of a client that an agent's module created, as opposed to those of the gateway's upstreams.

Clients of the gateway are subclasses in a plugin, so a plugin's frames are between those of the client's library.
"""

import socket
import traceback
from typing import Any

from gateway_core.errors import GatewayError

_LIBRARIES = ("openai", "litellm")


def name_own_client(found: GatewayError, error: BaseException) -> None:
    """Name the agent's own client in a gateway error, if that client raised the exception.

    The gateway's clients see that it is the agent's own; only the hint, for operators, names the server.
    """
    if not _raised_by_own_client(error):
        return
    message = found.message.replace("the upstream", "the model server of the agent's own client")
    found.message = message.replace("the gateway's credential", "its credential")
    found.args = (found.message,)
    server = _server(error)
    calls = f"the agent's own client calls {server}" if server else "the agent creates its own client"
    fix = "fix its base URL and key in the module, or remove the client to use the gateway's upstreams"
    found.hint = f"{calls}{_cause(error)}; {fix}"


def _raised_by_own_client(error: BaseException) -> bool:
    names = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__))
    modules = [name.partition(".")[0] for name in names]
    first = next((index for index, module in enumerate(modules) if module in _LIBRARIES), None)
    return first is not None and all(module in _LIBRARIES for module in modules[first:])


def _server(error: Any) -> str | None:
    try:
        url = error.request.url
        return f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
    except (AttributeError, RuntimeError):
        return None


def _cause(error: BaseException) -> str:
    current: BaseException | None = error
    for _ in range(10):
        if isinstance(current, socket.gaierror) or "name resolution" in str(current).casefold():
            return ", whose name cannot be resolved"
        current = (current.__cause__ or current.__context__) if current is not None else None
    return ""
