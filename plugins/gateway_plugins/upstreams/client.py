"""The client for one upstream: the official one, with a pooled aiohttp transport, and cheaper at both ends of a chat.

Retries, errors, authentication and connections are the official client's own. Replaced is what it does to each value:
walking the type of a payload that has the wire's form already, and of each chunk at every token, costs more than
everything else on the way. Its stream also takes an answer that breaks off for one that ended well; this one does not.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import httpx2
from openai import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AsyncOpenAI,
    AsyncStream,
    DefaultAioHttpClient,
    NotGiven,
    Omit,
    OpenAIError,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response
from pydantic import ValidationError

from gateway_core import record_finish_reason, trace_headers
from gateway_plugins.upstreams.body_limits import limited
from gateway_plugins.upstreams.circuit_breaker import CircuitBreaker
from gateway_plugins.upstreams.settings import Upstream

KEEP_ALIVE_SECONDS = 60.0
MAX_LINE_BYTES = 4 * 1024 * 1024
_NO_KEY = "none"
_LISTS: dict[Any, str] = {ChatCompletion: "choices", Response: "output"}
"""What an answer always has, by its type."""
_VALIDATE_WHOLE = ChatCompletion.__pydantic_validator__.validate_python
_VALIDATE = ChatCompletionChunk.__pydantic_validator__.validate_json


class UpstreamClient(AsyncOpenAI):
    """The official client for one upstream.

    Args:
        upstream: Where it is and how patient to be with it.
        calls: Told of each call.
    """

    def __init__(self, upstream: Upstream, calls: CircuitBreaker | None = None, **options: Any) -> None:
        self._upstream = upstream
        self.calls = calls or CircuitBreaker()
        if "http_client" not in options:
            limits = httpx2.Limits(
                max_connections=upstream.max_connections,
                max_keepalive_connections=upstream.max_connections,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            )
            hooks = {"response": [limited(upstream.max_answer)]}
            options["http_client"] = DefaultAioHttpClient(limits=limits, event_hooks=hooks)
        options.setdefault("base_url", upstream.base_url)
        # Local servers need no key, and the client insists on one.
        options.setdefault("api_key", upstream.api_key.reveal() if upstream.api_key else _NO_KEY)
        options.setdefault("max_retries", upstream.retries)
        options.setdefault("default_headers", {name: value.reveal() for name, value in upstream.headers.items()})
        options.setdefault("timeout", httpx2.Timeout(upstream.total_timeout, connect=upstream.connect_timeout))
        super().__init__(**options)

    def copy(self, **changes: Any) -> "UpstreamClient":
        """The same client with other options, as `with_options` makes them; it shares the connections."""
        own = {"upstream": self._upstream, "calls": self.calls, **changes.pop("_extra_kwargs", {})}
        return super().copy(_extra_kwargs=own, **changes)

    with_options = copy

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Send a request of any kind."""
        try:
            return await super().request(*arguments, **named)
        except APITimeoutError as error:
            raise _as_it_was(error, error.request) from error

    async def post(self, path: str, **options: Any) -> Any:
        """Send a request; a stream has its own limits of patience."""
        self.calls.made += 1
        try:
            return await self._post_in_time(path, **options)
        except OpenAIError as error:
            self.calls.failure(error)
            raise

    async def _post_in_time(self, path: str, **options: Any) -> Any:
        if not options.get("stream"):
            return await self._post_whole(path, **options)
        request = {**options.get("options", {})}
        request.setdefault(
            "timeout", httpx2.Timeout(self._upstream.idle_timeout, connect=self._upstream.connect_timeout)
        )
        try:
            async with asyncio.timeout(self._upstream.first_byte_timeout):
                return await super().post(path, **{**options, "options": request})
        except TimeoutError as error:
            raise APITimeoutError(request=httpx2.Request("POST", self._upstream.base_url)) from error

    async def _post_whole(self, path: str, **options: Any) -> Any:
        try:
            answer = await super().post(path, **options)
        except ValueError as error:  # no JSON, or no text at all
            raise self._no_answer("the upstream sent something that is no JSON") from error
        wanted = _LISTS.get(options.get("cast_to"))
        # The official client passes on what it cannot read, and does not look for errors in what it can.
        if wanted is not None and not isinstance(getattr(answer, wanted, None), list):
            raise self._no_answer("the upstream sent something that is no answer")
        return answer

    def _no_answer(self, message: str) -> APIError:
        return APIError(message, request=httpx2.Request("POST", self._upstream.base_url), body=None)

    async def _prepare_request(self, request: httpx2.Request) -> None:
        """Tell the upstream which trace the request belongs to. Called by the official client before each sending."""
        for name, value in trace_headers().items():
            request.headers.setdefault(name, value)

    def _process_response_data(self, *, data: Any, cast_to: Any, response: Any) -> Any:
        if cast_to is ChatCompletion:
            try:
                return _noted(_VALIDATE_WHOLE(data))
            except ValidationError:  # a server that lacks a field or has one of its own is still understood
                pass
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


def _noted(completion: ChatCompletion) -> ChatCompletion:
    if completion.choices:
        record_finish_reason(completion.choices[0].finish_reason)
    return completion


class ChatEndpoint:
    """As much of a client as the SDK's chat model uses: `client.chat.completions.create`.

    Args:
        client: The upstream's client.
    """

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client
        self.base_url = client.base_url
        self.chat = self.completions = self

    def with_options(self, **options: Any) -> "ChatEndpoint":
        """The same with other options, such as no retries."""
        return ChatEndpoint(self._client.with_options(**options))

    async def create(
        self, *, extra_headers: Any = None, extra_query: Any = None, extra_body: Any = None, **payload: Any
    ) -> Any:
        """Send a chat request. Returns a `ChatCompletion`, or a `ChunkStream`."""
        body = {name: value for name, value in payload.items() if not isinstance(value, Omit | NotGiven)}
        given = {"headers": extra_headers, "params": extra_query, "extra_json": extra_body}
        return await self._client.post(
            "/chat/completions",
            body=body,
            options={name: value for name, value in given.items() if value},
            cast_to=ChatCompletion,
            stream=bool(body.get("stream")),
            stream_cls=ChunkStream,
        )


class ChunkStream(AsyncStream[ChatCompletionChunk]):
    """A stream of chat completion chunks, by the rules of server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    async def __stream__(self) -> AsyncIterator[ChatCompletionChunk]:
        ended = False
        try:
            async for data in self._data():
                if data.startswith(b"[DONE]"):
                    ended = True
                    break
                chunk = self._chunk(data)
                for choice in chunk.choices:
                    if choice.finish_reason:
                        record_finish_reason(choice.finish_reason)
                        ended = True
                yield chunk
            if not ended:
                raise self._error("the upstream's stream broke off before its end")
        except APIError as error:
            cast(UpstreamClient, self._client).calls.failure(error)
            raise
        finally:
            await self.response.aclose()

    async def _data(self) -> AsyncIterator[bytes]:
        """The data of each event."""
        rest, event = b"", []
        try:
            async for piece in self.response.aiter_bytes():
                text = rest + piece
                if b"\r" in text:  # in the whole of it: a line's two last bytes may come apart
                    text = text.replace(b"\r\n", b"\n")
                lines = text.split(b"\n")
                rest = lines.pop()
                if len(rest) > MAX_LINE_BYTES:
                    raise self._error("the upstream sent a line that is too long")
                for line in lines:
                    if line.startswith(b"data:"):
                        event.append(line[6:] if line[5:6] == b" " else line[5:])
                    elif not line and event:
                        yield event[0] if len(event) == 1 else b"\n".join(event)
                        event = []
            if event or rest.startswith(b"data:"):
                # Not by the book, but some servers leave out the last empty line.
                yield b"\n".join([*event, rest[5:].strip()] if rest.startswith(b"data:") else event)
        except httpx2.TimeoutException as error:
            raise _as_it_was(error, self.response.request) from error
        except httpx2.HTTPError as error:
            raise APIConnectionError(request=self.response.request) from error

    def _chunk(self, data: bytes) -> ChatCompletionChunk:
        try:
            chunk: ChatCompletionChunk = _VALIDATE(data)
            return chunk
        except ValidationError:
            return self._unusual_chunk(data)

    def _unusual_chunk(self, data: bytes) -> ChatCompletionChunk:
        """An error inside the stream, or a chunk that lacks what OpenAI always sends."""
        try:
            value = json.loads(data)
        except ValueError as error:
            raise self._error("the upstream sent something that is no JSON") from error
        if not isinstance(value, dict):
            raise self._error("the upstream sent something that is no chunk")
        if value.get("error"):
            raise self._error("the upstream reports an error")
        built: ChatCompletionChunk = self._client._process_response_data(
            data=value, cast_to=ChatCompletionChunk, response=self.response
        )
        if not isinstance(getattr(built, "choices", None), list):
            raise self._error("the upstream sent something that is no chunk")
        return built

    def _error(self, message: str) -> APIError:
        return APIError(message, request=self.response.request, body=None)


def _as_it_was(error: Exception, request: httpx2.Request) -> APIConnectionError:
    """The transport calls it a timeout, too, when a connection is refused or closed."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError | aiohttp.ClientConnectionError) and not isinstance(below, TimeoutError):
            return APIConnectionError(request=request)
        below = below.__cause__ or below.__context__
    return APITimeoutError(request=request)
