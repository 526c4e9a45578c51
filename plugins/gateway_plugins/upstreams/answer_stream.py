"""Reads a streamed answer: pieces of its body become events, and the events of a dialect those of OpenAI's.

An answer that is interrupted is an error, which it is not for the official client.
"""

import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Generic, TypeVar

import httpx2
from openai import APIError

from gateway_core import LARGE_BYTES, read_off_loop
from gateway_plugins.upstreams.framing import DialectError, Event, EventReader, values

_T = TypeVar("_T")
_RETRIES = "x-stainless-retry-count"
_KEEP_ALIVE = ("ping", "keepalive", "keep-alive", "heartbeat")
_STATUSES = (
    (429, ("rate_limit", "ratelimit", "quota", "too_many", "throttl", "resource_exhausted", "exhausted")),
    (503, ("overload", "unavailable", "capacity", "busy")),
    (504, ("timeout", "timed_out", "deadline")),
    (401, ("invalid_api_key", "authentication", "unauthorized", "unauthenticated")),
    (403, ("permission", "forbidden")),
    (404, ("model_not_found", "not_found")),
    (400, ("context_length", "content_filter", "content_policy", "invalid_request", "invalid_prompt", "bad_request")),
    (500, ("server_error", "internal")),
)
"""The HTTP status for the words in the codes and types of errors."""


class AnswerStream(Generic[_T]):
    """The part of an `AsyncStream` that reads the events of a dialect as OpenAI's."""

    response: httpx2.Response
    _client: Any
    _options: Any
    _iterator: AsyncIterator[_T]
    _done = False
    """Whether `[DONE]` was read."""

    async def __stream__(self) -> AsyncIterator[_T]:
        try:
            with self._client.errors(self.response.request):
                reader = EventReader()
                # The stream itself: the response's iterators would decompress it again.
                assert isinstance(self.response.stream, httpx2.AsyncByteStream)
                async for piece in self.response.stream:
                    # A large event is completed in a thread. Otherwise, the events before an error are read.
                    complete: Callable[..., Iterable[Event]] = list if reader.held > LARGE_BYTES else iter
                    for event in await read_off_loop(reader.held, complete, reader.feed(piece)):
                        for value in await self._values(event):
                            yield value
                        if self._done:
                            break
                    if self._done:
                        break
                else:
                    for event in await read_off_loop(reader.held, list, reader.end()):
                        for value in await self._values(event):
                            yield value
                for value in self.finish():
                    yield value
        except APIError as error:
            self._client.breaker.failure(error)
            raise
        finally:
            await self.response.aclose()

    @abstractmethod
    def read(self, event: Event) -> Iterable[_T]:
        """Return the values for an event.

        Raises:
            DialectError: It is invalid, or reports a failure.
        """

    @abstractmethod
    def finish(self) -> Iterable[_T]:
        """Return the last values.

        Raises:
            DialectError: The answer was interrupted.
        """

    def take_payload(self) -> Mapping[str, Any]:
        """Return the JSON of the request, and release the request: a silent stream would hold the conversation."""
        options, self._options = self._options, None
        sent = self.response.request
        self.response.request = _bare_request(sent.method, str(sent.url), sent.headers.get(_RETRIES))
        body = options.json_data if options is not None else None
        return body if isinstance(body, Mapping) else {}

    def __aiter__(self) -> AsyncIterator[_T]:
        return self._iterator

    async def _values(self, event: Event) -> Iterable[_T]:
        """Return the values for an event; none from `[DONE]` on."""
        self._done = self._done or event.data.startswith(b"[DONE]")
        return () if self._done else await read_off_loop(len(event.data), self.read, event)


@lru_cache(maxsize=100)
def _bare_request(method: str, url: str, retries: str | None) -> httpx2.Request:
    """Return what errors need of a request, which streams share."""
    return httpx2.Request(method, url, headers={_RETRIES: retries} if retries is not None else {})


def objects_in(event: Event) -> Iterable[dict[str, Any]]:
    """Yield the JSON objects of an event that have content.

    Raises:
        DialectError: The event is malformed, or the server reports a failure with it.
    """
    if not event.data.strip():
        return
    if event.name == "error":
        raise DialectError("the upstream reported an error", _error_in(event.data))
    if event.name in _KEEP_ALIVE:
        return  # its data may be any text
    for value in values(event.data):
        if value == "[DONE]":
            return
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                raise DialectError("the upstream sent an invalid chunk")
            if each and each.get("type") not in _KEEP_ALIVE:
                yield each


def reported_status(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that stands for an error in an answer; `None` if it is not known."""
    for key in ("code", "status", "status_code", "http_status"):
        try:
            number = int(error[key])
        except (KeyError, TypeError, ValueError):
            continue
        if 400 <= number <= 599:
            return number
    words = " ".join(str(error.get(key) or "") for key in ("code", "type", "status")).casefold()
    text = re.sub(r"[\s-]+", "_", words)
    return next((status for status, names in _STATUSES if any(name in text for name in names)), None)


def _error_in(data: bytes) -> Mapping[str, Any]:
    try:
        [value] = values(data)
    except (DialectError, ValueError):
        return {"message": data[:1000].decode(errors="replace")}
    error = value.get("error", value) if isinstance(value, dict) else value
    return error if isinstance(error, dict) else {"message": str(error)}
