"""Provides the client for one upstream: the official OpenAI client with a pooled aiohttp transport and faster parsing.

Retries, errors, authentication and connections come from the official client. This module replaces its conversion of
values: the type-driven traversal of each payload and each chunk costs more than the rest of a call. It also treats an
interrupted stream as an error, which the official client does not.
"""

import asyncio
import codecs
import json
import re
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
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
from gateway_plugins.upstreams.conversation import call_ids, repair_pairs
from gateway_plugins.upstreams.dialect import Answer, DialectError, merge_chunks
from gateway_plugins.upstreams.settings import Upstream

KEEP_ALIVE_SECONDS = 60.0
MAX_LINE_BYTES = 4 * 1024 * 1024
_NO_KEY = "none"
_LISTS: dict[Any, str] = {ChatCompletion: "choices", Response: "output"}
"""The list that a valid response contains, by type."""
_VALIDATE_WHOLE = ChatCompletion.__pydantic_validator__.validate_python
_VALIDATE = ChatCompletionChunk.__pydantic_validator__.validate_json
_VALIDATE_CHUNK = ChatCompletionChunk.__pydantic_validator__.validate_python
_MOVED = frozenset({"error", "message", "reasoning", "text", "usage"})
"""Fields of a chunk that have another place or name in OpenAI's form."""
_ANSWER: ContextVar[Answer] = ContextVar("agent_gateway_upstream_answer")
"""The state of the answer that the current task waits for."""


class UpstreamClient(AsyncOpenAI):
    """The official client for one upstream.

    Args:
        upstream: Settings of the upstream.
        breaker: Records each call and failure.
    """

    def __init__(self, upstream: Upstream, breaker: CircuitBreaker | None = None, **options: Any) -> None:
        self.upstream = upstream
        self.breaker = breaker or CircuitBreaker()
        if "http_client" not in options:
            limits = httpx2.Limits(
                max_connections=upstream.max_connections,
                max_keepalive_connections=upstream.max_connections,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            )
            hooks = {"response": [limited(upstream.max_answer)]}
            options["http_client"] = DefaultAioHttpClient(limits=limits, event_hooks=hooks)
        options.setdefault("base_url", upstream.base_url)
        # Local servers need no key, but the client requires one.
        options.setdefault("api_key", upstream.api_key.reveal() if upstream.api_key else _NO_KEY)
        options.setdefault("max_retries", upstream.retries)
        options.setdefault("default_headers", {name: value.reveal() for name, value in upstream.headers.items()})
        options.setdefault("timeout", httpx2.Timeout(upstream.total_timeout, connect=upstream.connect_timeout))
        super().__init__(**options)

    def copy(self, **changes: Any) -> "UpstreamClient":
        """Return a client with other options that shares the connections."""
        own = {"upstream": self.upstream, "breaker": self.breaker, **changes.pop("_extra_kwargs", {})}
        return super().copy(_extra_kwargs=own, **changes)

    with_options = copy

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Send a request."""
        try:
            return await super().request(*arguments, **named)
        except APITimeoutError as error:
            raise _connection_error(error, error.request) from error

    async def post(self, path: str, **options: Any) -> Any:
        """Send a POST request. Streams have their own timeouts."""
        self.breaker.calls += 1
        try:
            return await self._post_with_timeout(path, **options)
        except OpenAIError as error:
            self.breaker.failure(error)
            raise

    async def _post_with_timeout(self, path: str, **options: Any) -> Any:
        if not options.get("stream"):
            return await self._post_whole(path, **options)
        request = {**options.get("options", {})}
        request.setdefault("timeout", httpx2.Timeout(self.upstream.idle_timeout, connect=self.upstream.connect_timeout))
        try:
            async with asyncio.timeout(self.upstream.first_byte_timeout):
                return await super().post(path, **{**options, "options": request})
        except TimeoutError as error:
            raise APITimeoutError(request=httpx2.Request("POST", self.upstream.base_url)) from error

    async def _post_whole(self, path: str, **options: Any) -> Any:
        try:
            answer = await super().post(path, **options)
        except (TypeError, ValueError, RecursionError) as error:  # malformed JSON, or undecodable text
            raise self._invalid_response("the upstream returned malformed JSON") from error
        wanted = _LISTS.get(options.get("cast_to"))
        if wanted == "choices" and isinstance(answer, str) and "data:" in answer:
            answer = self._read_stream(answer)
        # The official client returns values that it cannot parse as they are, and does not detect errors in the body.
        if wanted is not None and not isinstance(getattr(answer, wanted, None), list):
            raise self._invalid_response("the upstream returned an invalid response")
        return answer

    def _read_stream(self, text: str) -> ChatCompletion:
        """Read a stream that an upstream sent in reply to a request for a whole answer."""
        blocks = re.split(r"(?:\r\n|\r|\n){2,}", text.removeprefix("\ufeff"))
        lines = (re.split(r"\r\n|\r|\n", block) for block in blocks)
        events = ("\n".join(line[5:].strip() for line in block if line.startswith("data:")) for block in lines)
        try:
            chunks = [json.loads(event) for event in events if event and event != "[DONE]"]
        except ValueError as error:
            raise self._invalid_response("the upstream returned malformed JSON") from error
        try:
            merged = merge_chunks(chunks)
        except DialectError as error:
            raise self._invalid_response(str(error)) from error
        completion: ChatCompletion = self._process_response_data(data=merged, cast_to=ChatCompletion, response=None)
        return completion

    def _invalid_response(self, message: str) -> APIError:
        return APIError(message, request=httpx2.Request("POST", self.upstream.base_url), body=None)

    async def _prepare_request(self, request: httpx2.Request) -> None:
        """Add the trace headers. The official client calls it before each attempt."""
        for name, value in trace_headers().items():
            request.headers.setdefault(name, value)

    def _process_response_data(self, *, data: Any, cast_to: Any, response: Any) -> Any:
        if cast_to is ChatCompletion and isinstance(data, dict):
            answer = _ANSWER.get(None) or Answer()
            try:
                data = answer.whole(data)
            except DialectError as error:
                raise self._invalid_response(str(error)) from error
            record_finish_reason(answer.finish_reason)
            try:
                return _VALIDATE_WHOLE(data)
            except ValidationError:  # missing or unknown fields are accepted
                pass
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


class ChatEndpoint:
    """The part of a client that the SDK's chat model uses: `client.chat.completions.create`.

    Args:
        client: The upstream's client.
    """

    def __init__(self, client: UpstreamClient) -> None:
        self._client = client
        self.base_url = client.base_url
        self.chat = self.completions = self

    def with_options(self, **options: Any) -> "ChatEndpoint":
        """Return an endpoint with other options, such as no retries."""
        return ChatEndpoint(self._client.with_options(**options))

    async def create(
        self, *, extra_headers: Any = None, extra_query: Any = None, extra_body: Any = None, **payload: Any
    ) -> Any:
        """Send a chat request, and return a `ChatCompletion` or a `ChunkStream`."""
        body = {name: value for name, value in payload.items() if not isinstance(value, Omit | NotGiven)}
        # Some servers stream by default.
        body["stream"] = bool(body.get("stream"))
        body["messages"] = repair_pairs(body.get("messages") or ())
        answer = Answer(call_ids(body["messages"]), structured="response_format" in body)
        given = {"headers": extra_headers, "params": extra_query, "extra_json": extra_body}
        token = _ANSWER.set(answer)
        try:
            completion = await self._client.post(
                "/chat/completions",
                body=body,
                options={name: value for name, value in given.items() if value},
                cast_to=ChatCompletion,
                stream=body["stream"],
                stream_cls=ChunkStream,
            )
        finally:
            _ANSWER.reset(token)
        if isinstance(completion, ChunkStream):
            completion.answer = answer
        return completion


class ChunkStream(AsyncStream[ChatCompletionChunk]):
    """A stream of chat completion chunks, parsed as server-sent events.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """

    answer = Answer()
    """The state of the answer, set where the stream is created."""

    async def __stream__(self) -> AsyncIterator[ChatCompletionChunk]:
        done = False
        try:
            async for data in self._data():
                if data.startswith(b"[DONE]"):
                    done = True
                    break
                if (chunk := self._chunk(data)) is not None:
                    yield chunk
            if not done and self.answer.finish_reason is None:
                raise self._error("the upstream's stream was interrupted")
            yield self._convert(self.answer.end)
            record_finish_reason(self.answer.finish_reason)
        except APIError as error:
            cast(UpstreamClient, self._client).breaker.failure(error)
            raise
        finally:
            await self.response.aclose()

    async def _data(self) -> AsyncIterator[bytes]:
        """Yield the data of each event."""
        if "json" in self.response.headers.get("content-type", ""):
            yield await self.response.aread()  # a whole answer, although a stream was requested
            return
        rest, event, first = b"", [], True
        try:
            async for piece in self.response.aiter_bytes():
                text = rest + piece
                if first and len(text) >= len(codecs.BOM_UTF8):
                    text, first = text.removeprefix(codecs.BOM_UTF8), False
                if b"\r" in text:  # not only in `piece`: a CRLF may be split between two pieces
                    last = b"\r" if text.endswith(b"\r") else b""
                    text = text.removesuffix(last).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last
                lines = text.split(b"\n")
                rest = lines.pop()
                if len(rest) > MAX_LINE_BYTES:
                    raise self._error(f"the upstream sent a line longer than {MAX_LINE_BYTES} bytes")
                for line in lines:
                    if line.startswith(b"data:"):
                        event.append(line[6:] if line[5:6] == b" " else line[5:])
                    elif not line and event:
                        yield event[0] if len(event) == 1 else b"\n".join(event)
                        event = []
            if event or rest.startswith(b"data:"):
                # The standard requires a final empty line, but some servers omit it.
                yield b"\n".join([*event, rest[5:].strip()] if rest.startswith(b"data:") else event)
        except httpx2.TimeoutException as error:
            raise _connection_error(error, self.response.request) from error
        except httpx2.HTTPError as error:
            raise APIConnectionError(request=self.response.request) from error

    def _chunk(self, data: bytes) -> ChatCompletionChunk | None:
        """Parse an event; `None` if it has no content, such as a ping."""
        try:
            chunk: ChatCompletionChunk = _VALIDATE(data)
            if not self.answer.structured and _is_plain(chunk):
                return chunk
        except ValidationError:
            pass
        return self._unusual_chunk(data)

    def _unusual_chunk(self, data: bytes) -> ChatCompletionChunk | None:
        """Parse a chunk with tool calls, an end or an unusual form, or raise the error that the event contains."""
        if not data.strip():
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._error("the upstream returned malformed JSON") from error
        if not isinstance(value, dict):
            raise self._error("the upstream sent an invalid chunk")
        if not isinstance(value.get("choices"), list) and (value.get("type") == "ping" or not value):
            return None
        return self._convert(lambda: self.answer.chunk(value))

    def _convert(self, normalize: Callable[[], dict[str, Any]]) -> ChatCompletionChunk:
        try:
            value = normalize()
            try:
                chunk: ChatCompletionChunk = _VALIDATE_CHUNK(value)
            except ValidationError:  # missing or unknown fields are accepted
                chunk = self._client._process_response_data(
                    data=value, cast_to=ChatCompletionChunk, response=self.response
                )
        except DialectError as error:
            raise self._error(str(error)) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise self._error("the upstream sent an invalid chunk") from error
        return chunk

    def _error(self, message: str) -> APIError:
        return APIError(message, request=self.response.request, body=None)


def _is_plain(chunk: ChatCompletionChunk) -> bool:
    """Whether a chunk is text of the one choice in OpenAI's form, which needs no normalization."""
    if len(chunk.choices) != 1:
        return False
    [choice] = chunk.choices
    delta = choice.delta
    return (
        choice.index == 0
        and not choice.finish_reason
        and not delta.tool_calls
        and delta.function_call is None
        and not any(value is not None and name in _MOVED for name, value in (delta.model_extra or {}).items())
        and not any(value is not None and name in _MOVED for name, value in (choice.model_extra or {}).items())
        and chunk.usage is None
        and (isinstance(delta.content, str) or "reasoning_content" in (delta.model_extra or ()))
    )


def _connection_error(error: Exception, request: httpx2.Request) -> APIConnectionError:
    """Convert a timeout error: the transport also reports refused and closed connections as timeouts."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError | aiohttp.ClientConnectionError) and not isinstance(below, TimeoutError):
            return APIConnectionError(request=request)
        below = below.__cause__ or below.__context__
    return APITimeoutError(request=request)
