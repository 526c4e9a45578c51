"""Reads a request's JSON body within its limits.

It knows no field of any request; `chat_request.py` and its like do.
"""

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from gateway_core.config.settings import HttpConfig
from gateway_core.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError


async def read_json_object(request: Request, limits: HttpConfig) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        RequestTooLargeError: It is larger than `max_body`.
        RequestTimeoutError: It did not arrive within `body_timeout`.
        InvalidRequestError: It is no JSON, no object, or nested too deeply.
    """
    body = await _read(request, limits)
    try:
        # Stricter than the standard library's parser: no NaN, no lone surrogates, no invalid UTF-8.
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            "the body is no valid JSON" if body else "the body is empty; send a JSON object",
            hint=f"line {error.lineno}, column {error.colno}" if body else None,
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    if _deeper_than(value, limits.max_json_depth):
        raise InvalidRequestError(f"the body is nested deeper than {limits.max_json_depth} levels")
    return value


async def _read(request: Request, limits: HttpConfig) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_body:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body:
                    raise _too_large(limits)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeoutError(f"the body did not arrive within {limits.body_timeout:g} s") from None
    except ClientDisconnect:
        raise InvalidRequestError("the client left before its body arrived", status=499) from None
    return b"".join(chunks)


def _too_large(limits: HttpConfig) -> RequestTooLargeError:
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
