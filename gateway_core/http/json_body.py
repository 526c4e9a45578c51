"""Reads the JSON body of a request and enforces the limits on size, time and nesting.

Fields are validated elsewhere, such as in `http/chat/request.py`.
"""

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError


async def read_json_object(request: Request, limits: HttpConfig) -> dict[str, Any]:
    """Returns the body as a JSON object.

    Raises:
        RequestTooLargeError: The body is larger than `max_body`.
        RequestTimeoutError: The body did not arrive within `body_timeout`.
        InvalidRequestError: The body is not a JSON object, or is nested too deeply.
    """
    body = await _read(request, limits)
    try:
        # orjson is stricter than the standard library: it rejects NaN, lone surrogates and invalid UTF-8.
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            "the body is not valid JSON" if body else "the body is empty; send a JSON object",
            hint=f"line {error.lineno}, column {error.colno}" if body else None,
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    if _deeper_than(value, limits.max_json_depth):
        raise InvalidRequestError(f"the body is nested more than {limits.max_json_depth} levels deep")
    return value


async def _read(request: Request, limits: HttpConfig) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_body:
        raise _body_too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body:
                    raise _body_too_large(limits)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeoutError(f"timed out after {limits.body_timeout:g} s while reading the body") from None
    except ClientDisconnect:
        raise InvalidRequestError("the client disconnected before sending the whole body", status=499) from None
    return b"".join(chunks)


def _body_too_large(limits: HttpConfig) -> RequestTooLargeError:
    return RequestTooLargeError(f"the body is larger than {limits.max_body} bytes")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
