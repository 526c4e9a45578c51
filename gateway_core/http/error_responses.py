"""An error of the gateway's tree becomes an answer in OpenAI's error shape.

It shows the message that the error was raised with, and never an exception's text, a path or a traceback.
"""

import math
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway_core.errors import (
    GatewayError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    Stage,
)

_CLIENT_STAGES = frozenset({Stage.ROUTE, Stage.AUTHENTICATE, Stage.AUTHORIZE})


def body(error: GatewayError, request_id: str) -> dict[str, Any]:
    """OpenAI's error object. Hints are for whoever can act on them: a request's own mistakes carry theirs."""
    message = error.message
    if error.hint and error.stage in _CLIENT_STAGES:
        message = f"{message}; {error.hint}"
    return {
        "error": {
            "message": f"{message} (request id: {request_id})" if error.status >= 500 else message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def response(error: GatewayError, request_id: str) -> Response:
    """The whole answer: status, headers, JSON."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body(error, request_id)), error.status, headers=headers, media_type="application/json")


def from_starlette(request: Request, error: HTTPException) -> GatewayError | None:
    """What Starlette's own 404 and 405 mean here; `None` for an OPTIONS request, which is no error."""
    if error.status_code == 405:
        if request.method == "OPTIONS":
            return None
        return MethodNotAllowedError(f"{request.url.path} does not take {request.method}")
    if error.status_code == 404:
        return NotFoundError(f"there is nothing at {request.url.path}")
    return InvalidRequestError(str(error.detail), status=error.status_code)
