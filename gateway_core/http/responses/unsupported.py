"""The parts of the Responses API that the gateway does not support: they return 404 with the code `unsupported`.

Without these routes, their paths would look like ids of responses, and return 405.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from gateway_core.errors import NotFoundError
from gateway_core.http import error_responses


async def compact(_: Request) -> Response:
    """`POST /v1/responses/compact`."""
    raise _unsupported("the path /v1/responses/compact", "use `previous_response_id`, or shorten the input")


async def input_tokens(_: Request) -> Response:
    """`POST /v1/responses/input_tokens`."""
    raise _unsupported("the path /v1/responses/input_tokens", "`usage` of a response has the counts of its upstream")


async def reject_web_socket(socket: WebSocket) -> None:
    """Rejects the WebSocket mode before the connection is upgraded."""
    problem = _unsupported("WebSocket mode", "send POST /v1/responses with `stream`")
    await socket.send_denial_response(error_responses.response(problem, request_id=""))


def _unsupported(what: str, hint: str) -> NotFoundError:
    return NotFoundError(f"{what} is not supported", code="unsupported", hint=hint)
