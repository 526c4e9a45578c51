"""Reads small JSON request bodies and builds uncacheable JSON responses for the `/security` routes."""

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway_core import InvalidRequestError

MAX_BODY = 16 * 1024
"""Maximum size of a body in bytes."""
BODY_SECONDS = 10.0


async def json_object(request: Request) -> dict[str, Any]:
    """Read and parse a request's body.

    Raises:
        InvalidRequestError: The body is too large, does not arrive in time, or is not a JSON object.
    """
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise InvalidRequestError(
                        f"the body is larger than {MAX_BODY} bytes", status=413, code="request_too_large"
                    )
    except TimeoutError:
        raise InvalidRequestError("the body did not arrive in time", status=408, code="request_timeout") from None
    except ClientDisconnect:
        raise InvalidRequestError("the client disconnected before the body was complete", status=499) from None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value


def json_response(value: Any, status: int = 200) -> Response:
    """Build a response with `cache-control: no-store`."""
    return Response(orjson.dumps(value), status, media_type="application/json", headers={"cache-control": "no-store"})
