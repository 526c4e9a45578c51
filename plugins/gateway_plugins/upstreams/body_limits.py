"""Limits the size of upstream responses, and applies the client's backpressure to them."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
from openai import APIError

from gateway_core import apply_backpressure


def limited(max_answer: int) -> Callable[[httpx2.Response], Awaitable[None]]:
    """Create a response hook for the HTTP client, which is called before the body is read.

    Args:
        max_answer: Maximum size of a body in bytes.
    """

    async def hook(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Body(response.stream, max_answer, response.request)

    return hook


class _Body(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, max_answer: int, request: httpx2.Request) -> None:
        self._inner = inner
        self._remaining = max_answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._remaining -= len(piece)
            if self._remaining < 0:
                raise APIError("the upstream's response exceeds max_answer", request=self._request, body=None)
            yield piece
            await apply_backpressure(len(piece))

    async def aclose(self) -> None:
        await self._inner.aclose()
