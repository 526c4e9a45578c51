"""Why a server cannot be reached, or a call failed, in words that operators and models may read.

It takes no words from an exception that may hold an address, a path or a secret.
"""

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from gateway_plugins.mcp_tools.credentials import CredentialError
from gateway_plugins.mcp_tools.request_trace import RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize

# What the protocol's client says where a status came without words of the server's.
_STAND_INS = frozenset({"Server returned an error response", "Session terminated", "Not Found"})


class McpCallError(Exception):
    """Why a call failed, in words that a model may read."""


class UnreachableError(McpCallError):
    """There is no session with the server, so that it knows nothing of the call."""


def reason(error: BaseException, exchange: RequestTrace) -> str:
    """What is wrong with a server, to follow its name: "it …"."""
    error = _innermost(error)
    if isinstance(error, CredentialError):
        return f"no credential for it could be had: {error}"
    if exchange.too_big:
        return "it answers more than max_message allows"
    if exchange.status == 401:
        where = f"; {sanitize(exchange.resource_metadata)} says which" if exchange.resource_metadata else ""
        return f"it wants a credential that the gateway does not give (401{where})"
    if exchange.unsent:
        return "it takes no connection"
    if exchange.failed:
        return "it ended the connection"
    own_words = isinstance(error, MCPError) and error.message not in _STAND_INS
    if exchange.status is not None and exchange.status >= 400 and not own_words:
        return f"it answered with status {exchange.status}"
    if isinstance(error, TimeoutError) or (isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT):
        return "it did not answer in time"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"its command cannot be run ({type(error).__name__})"
    if is_lost(error):
        return "it ended the connection"
    if isinstance(error, MCPError):
        return f"it answered: {sanitize(error.message)}"
    return f"it answered something that cannot be read ({type(error).__name__})"


def is_lost(error: BaseException) -> bool:
    """Whether an error means that there is no connection any more."""
    if isinstance(error, MCPError):
        return error.code == CONNECTION_CLOSED
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"ClosedResourceError", "BrokenResourceError", "EndOfStream", "ConnectionError"})


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
