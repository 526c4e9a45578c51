"""Describes connection and call failures in text that operators and models may read.

It copies no text from exceptions that may contain an address, a path or a secret.
"""

from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from gateway_plugins.mcp_tools.credentials import CredentialError
from gateway_plugins.mcp_tools.request_trace import RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize

# Messages of the MCP client itself, used when the server sent a status without a message.
_CLIENT_MESSAGES = frozenset({"Server returned an error response", "Session terminated", "Not Found"})


class McpCallError(Exception):
    """A call failed. The message may be shown to a model."""


class UnreachableError(McpCallError):
    """The server is not connected, so the call was not sent."""


def reason(error: BaseException, trace: RequestTrace) -> str:
    """Describe a failure as a clause without a final period, for use after a colon."""
    error = _innermost(error)
    if isinstance(error, CredentialError):
        return f"could not get a credential: {error}"
    if trace.exceeded:
        return f"the response exceeds {trace.exceeded}"
    if trace.status == 401:
        where = f"; resource metadata: {sanitize(trace.resource_metadata)}" if trace.resource_metadata else ""
        return f"unauthorized (401), no valid credential is configured{where}"
    if trace.unsent:
        return "could not connect"
    if trace.failed:
        return "the connection was lost"
    from_server = isinstance(error, MCPError) and error.message not in _CLIENT_MESSAGES
    if trace.status is not None and trace.status >= 400 and not from_server:
        return f"the server returned status {trace.status}"
    if isinstance(error, TimeoutError) or (isinstance(error, MCPError) and error.code == REQUEST_TIMEOUT):
        return "the request timed out"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return f"the command could not be started ({type(error).__name__})"
    if is_lost(error):
        return "the connection was lost"
    if isinstance(error, MCPError):
        return f"the server returned an error: {sanitize(error.message)}"
    return f"the server returned an invalid response ({type(error).__name__})"


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is closed."""
    if isinstance(error, MCPError):
        return error.code == CONNECTION_CLOSED
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"ClosedResourceError", "BrokenResourceError", "EndOfStream", "ConnectionError"})


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
