"""Limits the size of upstream responses, applies the client's backpressure to them, and rejects redirects elsewhere."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

import httpx2
from openai import APIStatusError

from gateway_core import apply_backpressure
from gateway_plugins.upstreams.framing import DialectError

_KEEP_METHOD = (307, 308)
# The client parses errors and lists itself, in the event loop.
_MAX_ERROR_BYTES = 1024 * 1024
_MAX_LIST_BYTES = 4 * 1024 * 1024


async def check_redirect(response: httpx2.Response) -> None:
    """Reject a redirect to another origin, or one that changes the request: a response hook for the HTTP client.

    The request contains the prompt, and headers that are meant for the configured server only.

    Raises:
        APIStatusError: The redirect is not followed. The message names both origins.
    """
    if not response.has_redirect_location:
        return
    request = response.request
    try:
        target = request.url.join(response.headers["location"])
        place = _origin(target)
    except (httpx2.InvalidURL, ValueError):
        place = "an invalid URL"
    here = _origin(request.url)
    if place == here and (response.status_code in _KEEP_METHOD or request.method in ("GET", "HEAD")):
        return
    message = f"the upstream at {here} redirects to {place}, which is not followed"
    if place == here:
        message = f"the upstream at {here} redirects with status {response.status_code}, which would drop the request"
    await response.aclose()
    raise APIStatusError(message, response=response, body={"message": message})


def limited(max_answer: int) -> Callable[[httpx2.Response], Awaitable[None]]:
    """Create a response hook for the HTTP client, which is called before the body is read.

    Args:
        max_answer: Maximum size of a body in bytes, decompressed.
    """

    async def hook(response: httpx2.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        pieces: AsyncIterable[bytes] = stream
        if "content-encoding" in response.headers:
            # Decompressed here, piece by piece: a small compressed body may stand for gigabytes.
            pieces = httpx2.Response(
                response.status_code, headers=response.headers, stream=stream, request=response.request
            ).aiter_bytes()
            del response.headers["content-encoding"]
        if response.status_code >= 400:
            response.stream = _Body(stream, pieces, _MAX_ERROR_BYTES, truncate=True)
        else:
            response.stream = _Body(
                stream, pieces, max_answer if response.request.method == "POST" else _MAX_LIST_BYTES
            )

    return hook


class _Body(httpx2.AsyncByteStream):
    def __init__(
        self, stream: httpx2.AsyncByteStream, pieces: AsyncIterable[bytes], size: int, *, truncate: bool = False
    ) -> None:
        self._stream = stream
        self._pieces = pieces
        self._remaining = size
        self._truncate = truncate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            self._remaining -= len(piece)
            if self._remaining < 0 and self._truncate:
                yield piece[: self._remaining]
                return
            if self._remaining < 0:
                raise DialectError("the upstream's response exceeds max_answer")
            yield piece
            await apply_backpressure(len(piece))

    async def aclose(self) -> None:
        await self._stream.aclose()


def _origin(url: httpx2.URL) -> str:
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"
