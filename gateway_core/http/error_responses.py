"""Serializes gateway errors as responses in OpenAI's error format.

A response contains the message of a `GatewayError`, but never the text of another exception, a file path or a
traceback.
"""

import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway_core.errors import (
    FAILED_AFTER_TOOL,
    GatewayError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    Stage,
)
from gateway_core.http.json_io import json_response

_CLIENT_STAGES = frozenset({Stage.ROUTE, Stage.AUTHENTICATE, Stage.AUTHORIZE})

_REJECTED = (400, 413, 422)
"""The request itself is the reason, whichever stage rejected it."""


def body(error: GatewayError, request_id: str) -> dict[str, Any]:
    """Returns OpenAI's error object. It includes the hint only when the client can act on it."""
    message = error.message
    if error.hint and error.stage in _CLIENT_STAGES:
        message = f"{message}; {error.hint}"
    if error.detail:
        message = f"{message}: {error.detail}"
    return {
        "error": {
            "message": f"{message} (request id: {request_id})" if _is_failure(error) else message,
            "type": InvalidRequestError.kind if error.status in _REJECTED else error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def _is_failure(error: GatewayError) -> bool:
    return error.status >= 500 or error.status == FAILED_AFTER_TOOL


def response(error: GatewayError, request_id: str) -> Response:
    """Returns the complete response: status, headers and JSON body."""
    answer = json_response(body(error, request_id), error.status)
    if error.retry_after is not None:
        answer.headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.should_retry is False:
        answer.headers["x-should-retry"] = "false"
    if error.status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def from_starlette(request: Request, error: HTTPException) -> GatewayError | None:
    """Converts a Starlette HTTP exception; returns `None` for an OPTIONS request, which is not an error."""
    if error.status_code == 405:
        if request.method == "OPTIONS":
            return None
        return MethodNotAllowedError(f"{request.url.path} does not allow the method {request.method}")
    if error.status_code == 404:
        return NotFoundError(f"the path {request.url.path} does not exist")
    return InvalidRequestError(str(error.detail), status=error.status_code)
