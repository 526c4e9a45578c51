"""The parts of the Responses API that the gateway does not support: they return 404 with the code `unsupported`.

Without these routes, their paths would look like ids of responses, and return 405.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from gateway_core.errors import NotFoundError
from gateway_core.gateway import RunningGateway
from gateway_core.http import error_responses
from gateway_core.http.auth import authenticated

_HINTS = {
    "/v1/responses/compact": "use `previous_response_id`, or shorten the input",
    "/v1/responses/input_tokens": "`usage` of a response has the counts of its upstream",
}
PATHS = tuple(_HINTS)


class UnsupportedPath:
    """The endpoint of the paths that are not supported.

    Args:
        gateway: Authenticates the callers.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    async def post(self, request: Request) -> Response:
        """Reject the request."""
        await authenticated(request, self._gateway)
        path = request.url.path.rstrip("/")
        raise _unsupported(f"the path {path}", _HINTS[path])


async def reject_web_socket(socket: WebSocket) -> None:
    """Rejects the WebSocket mode before the connection is upgraded."""
    problem = _unsupported("WebSocket mode", "send POST /v1/responses with `stream`")
    await socket.send_denial_response(error_responses.response(problem, request_id=""))


def _unsupported(what: str, hint: str) -> NotFoundError:
    return NotFoundError(f"{what} is not supported", code="unsupported", hint=hint)
