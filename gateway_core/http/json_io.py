"""Reads JSON request bodies within limits, and creates JSON responses.

Fields are validated elsewhere, such as in `http/chat/request.py`. Starlette is imported on first use, because plugins
that only define commands import this module as well.
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson

from gateway_core.config.sources import deeper_than
from gateway_core.errors import InvalidRequestError, RequestTimeoutError, RequestTooLargeError
from gateway_core.net.json_size import has_more_values

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def json_response(value: Any, status: int = 200) -> "Response":
    """Creates a response that caches do not store.

    Args:
        value: The body: a value that orjson serializes, or bytes that contain JSON already.
        status: The HTTP status.
    """
    from starlette.responses import Response

    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Response(body, status, media_type="application/json", headers={"cache-control": "no-store"})


async def read_json(
    request: "Request",
    *,
    max_body: int = 16 * 1024,
    timeout: float = 10.0,
    max_depth: int = 64,
    max_values: int = 100_000,
) -> dict[str, Any]:
    """Returns the body of a request, which must be a JSON object.

    Args:
        request: The request, whose body has not been read.
        max_body: Maximum size in bytes.
        timeout: Maximum time in seconds until the whole body has arrived.
        max_depth: Maximum nesting of objects and arrays.
        max_values: Maximum number of values.

    Raises:
        RequestTooLargeError: The body is larger than `max_body`.
        RequestTimeoutError: The body did not arrive within `timeout`.
        InvalidRequestError: The body is not a JSON object, is nested too deeply, or contains too many values.
    """
    body = await _read(request, max_body, timeout)
    if has_more_values(max_values, body):
        raise InvalidRequestError(f"the body contains more than {max_values} values (max_json_values)")
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
    if deeper_than(max_depth, value):
        raise InvalidRequestError(f"the body is nested more than {max_depth} levels deep")
    return value


async def _read(request: "Request", max_body: int, timeout: float) -> bytes:
    from starlette.requests import ClientDisconnect

    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_body:
        raise _too_large(max_body)
    body = bytearray()
    decode = _decoder(request.headers.get("content-encoding", ""), max_body)
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += decode(chunk)
                if len(body) > max_body:
                    raise _too_large(max_body)
    except TimeoutError:
        raise RequestTimeoutError(f"timed out after {timeout:g} s while reading the body") from None
    except ClientDisconnect:
        raise InvalidRequestError("the client disconnected before sending the whole body", status=499) from None
    except zlib.error:
        raise InvalidRequestError("the body is not valid in its Content-Encoding") from None
    return bytes(body)


def _too_large(max_body: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the body is larger than {max_body} bytes")


def _decoder(encoding: str, max_body: int) -> Callable[[bytes], bytes]:
    """Returns a function that decodes the chunks of a body, each to at most one byte more than the limit.

    Raises:
        InvalidRequestError: The encoding is not supported (https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16).
    """
    name = encoding.strip().casefold()
    if name in ("", "identity"):
        return lambda chunk: chunk
    if name not in ("gzip", "x-gzip", "deflate"):
        raise InvalidRequestError(
            f"the Content-Encoding {encoding[:40]!r} is not supported",
            hint="send the body as gzip, deflate, or without an encoding",
            code="unsupported_media_type",
            status=415,
        )
    # 32: detect the header of gzip or zlib.
    decompressor = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    return lambda chunk: decompressor.decompress(chunk, max_body + 1)
