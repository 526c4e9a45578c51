"""Sends chat requests, and reads their answers, whole and streamed."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from openai import AsyncStream, NotGiven, Omit
from openai._models import construct_type
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import ValidationError

from gateway_core import record_finish_reason
from gateway_plugins.upstreams.answer_stream import AnswerStream, objects_in
from gateway_plugins.upstreams.conversation import call_ids
from gateway_plugins.upstreams.dialect import Answer, merge_chunks
from gateway_plugins.upstreams.framing import DialectError, Event, check_values, read_body
from gateway_plugins.upstreams.tool_calls import objects

_VALIDATE_WHOLE = ChatCompletion.__pydantic_validator__.validate_python
_VALIDATE = ChatCompletionChunk.__pydantic_validator__.validate_json
_VALIDATE_CHUNK = ChatCompletionChunk.__pydantic_validator__.validate_python
_MOVED = frozenset({"audio", "error", "message", "reasoning", "reasoning_details", "text", "thinking", "usage"})
"""Fields of a chunk that have another place or name in OpenAI's form."""


class ChatEndpoint:
    """The part of a client that the SDK's chat model uses: `client.chat.completions.create`.

    Args:
        client: The upstream's client.
    """

    def __init__(self, client: Any) -> None:
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
        if body["stream"]:
            # Most servers report the token usage of a stream only on request.
            body.setdefault("stream_options", {"include_usage": True})
        given = {"headers": extra_headers, "params": extra_query, "extra_json": extra_body}
        return await self._client.post(
            "/chat/completions",
            body=body,
            options={name: value for name, value in given.items() if value},
            cast_to=ChatCompletion,
            stream=body["stream"],
            stream_cls=ChunkStream,
        )


class ChunkStream(AnswerStream[ChatCompletionChunk], AsyncStream[ChatCompletionChunk]):
    """A stream of chat completion chunks."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._answer = _answer_to(self.take_payload())

    def read(self, event: Event) -> Iterable[ChatCompletionChunk]:
        """Return the chunks for an event."""
        answer = self._answer
        if event.name != "error":
            check_values(event.data)
            try:
                chunk: ChatCompletionChunk = _VALIDATE(event.data)
                if not answer.structured and _is_plain(chunk):
                    answer.has_output = True
                    return (chunk,)
            except ValidationError:
                pass
        return [_chunk(answer.chunk, value) for value in objects_in(event)]

    def finish(self) -> Iterable[ChatCompletionChunk]:
        """Return the last chunk."""
        yield _chunk(self._answer.end)
        record_finish_reason(self._answer.finish_reason)


STREAM = ChunkStream


def read(content: bytes, payload: Mapping[str, Any]) -> ChatCompletion:
    """Read a whole answer, or a stream that was sent in place of one.

    Raises:
        DialectError: It is invalid, or reports a failure.
    """
    events, is_stream = read_body(content)
    objects = [value for event in events for value in objects_in(event)]
    answer = _answer_to(payload)
    if is_stream or len(objects) > 1:
        value = merge_chunks(answer, objects)
    elif objects:
        value = answer.whole(objects[0])
    else:
        raise DialectError("the upstream returned an invalid response")
    record_finish_reason(answer.finish_reason)
    try:
        return cast(ChatCompletion, _VALIDATE_WHOLE(value))
    except ValidationError:  # missing or unknown fields are accepted
        return cast(ChatCompletion, construct_type(type_=ChatCompletion, value=value))


def _answer_to(payload: Mapping[str, Any]) -> Answer:
    tools = (tool.get("function") for tool in objects(payload.get("tools")))
    names = frozenset(str(function.get("name")) for function in tools if isinstance(function, Mapping))
    return Answer(call_ids(payload.get("messages") or ()), structured="response_format" in payload, tools=names)


def _chunk(normalize: Callable[..., dict[str, Any]], *arguments: Any) -> ChatCompletionChunk:
    value = normalize(*arguments)
    try:
        return cast(ChatCompletionChunk, _VALIDATE_CHUNK(value))
    except ValidationError:  # missing or unknown fields are accepted
        return cast(ChatCompletionChunk, construct_type(type_=ChatCompletionChunk, value=value))


def _is_plain(chunk: ChatCompletionChunk) -> bool:
    """Whether a chunk is text of the one choice in OpenAI's form, which needs no normalization."""
    if len(chunk.choices) != 1:
        return False
    [choice] = chunk.choices
    delta = choice.delta
    extra = delta.model_extra or {}
    reasoning = extra.get("reasoning_content")
    return (
        choice.index == 0
        and not choice.finish_reason
        and not delta.tool_calls
        and delta.function_call is None
        and not any(value is not None and name in _MOVED for name, value in extra.items())
        and not any(value is not None and name in _MOVED for name, value in (choice.model_extra or {}).items())
        and chunk.usage is None
        and (isinstance(reasoning, str) or (reasoning is None and isinstance(delta.content, str)))
    )
