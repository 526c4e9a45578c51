"""A real HTTP server for OpenAI's protocol that misbehaves on demand: the upstream of the gateway in tests.

It does not depend on the gateway, and has no model: a handler or the last user message determines the response.

    with FakeUpstream() as upstream:                             # in a thread of the test
        client = openai.OpenAI(base_url=upstream.base_url, api_key="any")
    with upstream_process() as base_url: ...                     # in a separate process
    python -m tests.support.upstream --port 0                    # manually; prints its port on the first line

Commands in the last user message, without a handler (`scripted`):

    say: some words               these words, one per chunk
    `say nothing`                 an empty answer
    reasoning: why | answer: so   reasoning first, then the answer
    slow 0.05 20                  20 tokens, one every 0.05 s
    endless                       tokens until the client disconnects
    filter, length                an answer with this finish reason
    call NAME {json}              this tool call, if the request has tools; then "tool said: <its output>"
    call A {} call B {}           two calls at once
    call A {} then call B {}      one after the other
    always call NAME {json}       a call in every turn
    fail 429 [7]                  this HTTP error [with retry-after]
    error-in-200                  an error object after two tokens
    hang, hang-after 3            no response headers; silence after 3 tokens
    rst 5, cut 5                  a TCP reset, or an orderly close within the body, after 5 tokens
    noend 5                       after 5 tokens the body ends, without finish_reason and [DONE]
    garbage, badutf8              malformed JSON; a token that is not valid UTF-8
    long-line [N]                 one token of N (a million) characters

Any other text, including `echo`, is echoed. If the answer is not streamed, an interruption after N tokens occurs in the
middle of the body. Token counts are fixed: 10 prompt tokens per message (or input item), of which 1 is cached; 1
completion token per word, including reasoning; none for tool calls.
"""

import argparse
import asyncio
import contextlib
import enum
import inspect
import itertools
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from attrs import evolve, field, frozen

Json = dict[str, Any]
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
INCOMPLETE_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Fault(enum.Enum):
    """A fault of the connection, in place of more bytes."""

    HANG = enum.auto()
    """Silence until the client disconnects."""
    RESET = enum.auto()
    """A TCP reset."""
    CUT = enum.auto()
    """An orderly close, within the body."""


Part = bytes | float | threading.Event | Fault
"""A piece of a body, a pause in seconds, something to wait for, or a fault."""


@frozen
class Request:
    """A received request."""

    method: str
    path: str
    """The path without the query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any
    """The parsed JSON; None if the body is empty or malformed."""
    raw: bytes = field(repr=False)
    time: float
    """The time of arrival in seconds since the epoch."""

    @property
    def streamed(self) -> bool:
        """Whether the request asks for a streamed answer."""
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def items(self) -> list[Json]:
        """The conversation: `messages` of a chat request, `input` of a Responses request."""
        body = self.body if isinstance(self.body, dict) else {}
        found: Any = body.get("messages", body.get("input", []))
        items: list[Json] = [{"role": "user", "content": found}] if isinstance(found, str) else list(found)
        return [{"role": "system", "content": body["instructions"]}, *items] if body.get("instructions") else items

    @property
    def user_text(self) -> str:
        """The text of the last user message."""
        return next((_text(item.get("content")) for item in reversed(self.items) if item.get("role") == "user"), "")

    @property
    def tool_results(self) -> list[list[str]]:
        """The tool results since the last user message, one list per round."""
        rounds: list[list[str]] = []
        after_output = False
        for item in self.items:
            is_output = item.get("role") == "tool" or item.get("type") == "function_call_output"
            if item.get("role") == "user":
                rounds = []
            elif is_output:
                if not after_output:
                    rounds.append([])
                rounds[-1].append(_text(item["content"] if "content" in item else item.get("output")))
            after_output = is_output
        return rounds


class Record:
    """A received request, and the state of its client and its response."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.closed_early = threading.Event()
        """Set when the client closed the connection before the response was complete."""
        self.closed_at: float | None = None
        """The time when that was detected, in seconds since the epoch."""
        self.finished = threading.Event()
        """Set when the response has ended: it is complete, was interrupted by a fault, or the client disconnected."""

    @property
    def body(self) -> Any:
        """The JSON of the request."""
        return self.request.body

    def as_json(self) -> Json:
        """Return the record as JSON, for another process."""
        request = self.request
        return {
            "method": request.method,
            "path": request.path,
            "headers": dict(request.headers),
            "body": request.body,
            "time": request.time,
            "closed_early": self.closed_early.is_set(),
            "closed_at": self.closed_at,
            "finished": self.finished.is_set(),
        }


@frozen
class Call:
    """A tool call of the model."""

    name: str
    arguments: str = "{}"
    id: str = field(factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


@frozen
class Answer:
    """The answer of the model, independent of the API format."""

    words: Iterable[str] = ()
    """One word per chunk, including spaces; may be endless if the answer is streamed."""
    reasoning: tuple[str, ...] = ()
    """Sent as `reasoning_content`, on chat completions only."""
    calls: tuple[Call, ...] = ()
    finish: str | None = None
    """`stop` or `tool_calls` by default."""
    delay: float = 0.0
    """Seconds before each word."""
    tail: tuple[Part, ...] | None = None
    """Sent after the words in place of the regular ending; `()` sends no ending."""


@frozen
class Reply:
    """An HTTP response, byte for byte. Status and headers are sent with the first bytes of the body."""

    parts: Iterable[Part]
    status: int = 200
    headers: Mapping[str, str] = {"content-type": "application/json"}
    length: int | None = None
    """The content-length header; without it, the body is chunked."""


Handler = Callable[[Request], "Answer | Reply | Awaitable[Answer | Reply]"]


def words(text: str) -> tuple[str, ...]:
    """Split a text into words whose concatenation is the text."""
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?", text))


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON response."""
    body = _dump(value)
    return Reply([body], status, {"content-type": "application/json", **(headers or {})}, len(body))


def error_reply(status: int, message: str | None = None, retry_after: str | None = None) -> Reply:
    """Return an error in OpenAI's format."""
    kind, code = {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }.get(status, ("server_error", None))
    error = {"message": message or f"The upstream was told to fail with {status}.", "type": kind, "param": None}
    return json_reply({"error": {**error, "code": code}}, status, {"retry-after": retry_after} if retry_after else {})


# The default handler.


def scripted(request: Request) -> Answer | Reply:
    """Execute the command in the last user message; the module's docstring lists the commands."""
    text = request.user_text.strip()
    steps = [calls for part in re.split(r"\bthen\b", text) if (calls := _calls(part))]
    if steps and request.body.get("tools"):
        rounds = request.tool_results
        if text.startswith("always "):
            return Answer(calls=steps[0])
        if len(rounds) < len(steps):
            return Answer(calls=steps[len(rounds)])
        return Answer(words("tool said: " + "; ".join(rounds[-1])))
    name, _, rest = text.partition(" ")
    make = _FAULTS.get(name)
    if make is not None and re.fullmatch(r"[\d.\s]*", rest):
        return make(request, rest.split())
    if text == "say nothing":
        return Answer()
    if said := re.match(r"say:\s*", text):
        return Answer(words(text[said.end() :]))
    if thought := re.fullmatch(r"reasoning:\s*(.*?)\s*\|\s*answer:\s*(.*)", text, re.DOTALL):
        return Answer(words(thought[2]), reasoning=words(thought[1]))
    return Answer(words(request.user_text))


def _calls(text: str) -> tuple[Call, ...]:
    found = []
    for match in re.finditer(r"\bcall ([\w.-]+)\s*(?=\{)", text):
        with contextlib.suppress(ValueError):
            _, end = json.JSONDecoder().raw_decode(text, match.end())
            found.append(Call(match[1], text[match.end() : end]))
    return tuple(found)


def _tokens(count: str) -> tuple[str, ...]:
    return tuple(f"{' ' if n else ''}t{n}" for n in range(int(count)))


def _endless(request: Request, _: list[str]) -> Answer | Reply:
    if request.streamed:
        return Answer(itertools.repeat("again "))
    return Reply(itertools.repeat(b" " * 1024))


def _garbage(request: Request, _: list[str]) -> Reply:
    if request.streamed:
        return Reply([b"data: {this is no JSON\n\n", b"data: [DONE]\n\n"], headers=_SSE)
    body = b"<html><body>It works!</body></html>"
    return Reply([body], headers={"content-type": "text/html"}, length=len(body))


def _error_in_200(request: Request, _: list[str]) -> Answer | Reply:
    error = {"message": "The upstream broke down.", "type": "server_error", "param": None, "code": "server_error"}
    if not request.streamed:
        return json_reply({"error": error})
    if request.path == RESPONSES:
        event = {"type": "error", "sequence_number": 6, "message": error["message"], "code": "server_error"}
        return Answer(_tokens("2"), tail=(_sse({**event, "param": None}, named=True),))
    return Answer(_tokens("2"), tail=(_sse({"error": error}),))


def _bad_utf8(request: Request, _: list[str]) -> Reply:
    rendered = render(request, Answer(("before ", "BROKEN", " after")))
    parts = [part.replace(b"BROKEN", b"\xff\xfe\xfa") if isinstance(part, bytes) else part for part in rendered.parts]
    # The three bytes are three fewer than the word they replace.
    length = None if rendered.length is None else sum(len(part) for part in parts if isinstance(part, bytes))
    return Reply(parts, headers=rendered.headers, length=length)


def _reset_after(request: Request, args: list[str]) -> Answer:
    # Wait briefly: a reset may overtake data that the client has not read yet.
    return Answer(_tokens(args[0]), tail=(0.05, Fault.RESET))


_FAULTS: Mapping[str, Callable[[Request, list[str]], Answer | Reply]] = {
    "slow": lambda request, args: Answer(_tokens(args[1]), delay=float(args[0])),
    "endless": _endless,
    "fail": lambda request, args: error_reply(int(args[0]), retry_after=args[1] if args[1:] else None),
    "hang": lambda request, args: Reply([Fault.HANG]),
    "hang-after": lambda request, args: Answer(_tokens(args[0]), tail=(Fault.HANG,)),
    "rst": _reset_after,
    "cut": lambda request, args: Answer(_tokens(args[0]), tail=(Fault.CUT,)),
    "noend": lambda request, args: Answer(_tokens(args[0]), tail=()),
    "garbage": _garbage,
    "error-in-200": _error_in_200,
    "badutf8": _bad_utf8,
    "long-line": lambda request, args: Answer(("x" * int(args[0] if args else 1_000_000),)),
    "filter": lambda request, args: Answer(_tokens("2"), finish="content_filter"),
    "length": lambda request, args: Answer(_tokens("2"), finish="length"),
}


# OpenAI's formats.

_SSE: Mapping[str, str] = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


def render(request: Request, answer: Answer) -> Reply:
    """Render an answer in the format of the request: chat completions or Responses, streamed or not."""
    responses = request.path == RESPONSES
    if request.streamed:
        return Reply((_response_stream if responses else _chat_stream)(request, answer), headers=_SSE)
    answer = evolve(answer, words=tuple(answer.words))
    body = _dump((_response_whole if responses else _chat_whole)(request, answer))
    pauses: list[Part] = [answer.delay for _ in answer.words if answer.delay]
    if answer.tail is None:
        return Reply([*pauses, body], length=len(body))
    return Reply([*pauses, body[: len(body) // 2], *answer.tail], length=len(body))


def items_reply(request: Request, output: list[Json]) -> Reply:
    """Return a response of the Responses API with the given output items, streamed or not, as OpenAI sends them."""
    head = _response_head(request)
    whole = _response_end(request, Answer(), head, output, 0)
    if not request.streamed:
        return json_reply(whole)
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> bytes:
        return _sse({"type": kind, "sequence_number": next(numbers), **fields}, named=True)

    def events() -> Iterator[Part]:
        yield event("response.created", response=head)
        for index, item in enumerate(output):
            at = {"output_index": index, "item_id": item.get("id")}
            opening = {**item, "status": "in_progress"}
            opening |= {name: empty for name, empty in _UNKNOWN_AT_START.items() if name in item}
            yield event("response.output_item.added", output_index=index, item=opening)
            for position, part in enumerate(item.get("content") or ()):
                place = {**at, "content_index": position}
                yield event("response.content_part.added", **place, part={**part, "text": "", "annotations": []})
                for word in words(part["text"]):
                    yield event("response.output_text.delta", **place, delta=word, logprobs=[])
                for number, annotation in enumerate(part["annotations"]):
                    added = {**place, "annotation_index": number, "annotation": annotation}
                    yield event("response.output_text.annotation.added", **added)
                yield event("response.output_text.done", **place, text=part["text"], logprobs=[])
                yield event("response.content_part.done", **place, part=part)
            yield event("response.output_item.done", output_index=index, item=item)
        yield event("response.completed", response=whole)

    return Reply(events(), headers=_SSE)


_UNKNOWN_AT_START: Mapping[str, Any] = {
    "content": [],
    "arguments": "",
    "result": None,
    "outputs": None,
    "results": None,
}


def message_item(text: str, *annotations: Json) -> Json:
    """Return a message as an output item of the Responses API."""
    message = _response_message(text)
    message["content"][0]["annotations"] = list(annotations)
    return message


def _chat_whole(request: Request, answer: Answer) -> Json:
    said = tuple(answer.words)
    message: Json = {
        "role": "assistant",
        "content": "".join(said) if said or not answer.calls else None,
        "refusal": None,
        "annotations": [],
    }
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
    usage = _chat_usage(request, len(answer.reasoning) + len(said), len(answer.reasoning))
    return {**_chat_head(request, "chat.completion"), "choices": [choice], "usage": usage}


def _chat_stream(request: Request, answer: Answer) -> Iterator[Part]:
    head = _chat_head(request, "chat.completion.chunk")
    wants_usage = bool((request.body.get("stream_options") or {}).get("include_usage"))
    nothing_yet = {"usage": None} if wants_usage else {}

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _sse({**head, "choices": [choice], **nothing_yet})

    yield chunk({"role": "assistant", "content": None if answer.calls else "", "refusal": None})
    for word in answer.reasoning:
        yield answer.delay
        yield chunk({"reasoning_content": word})
    said = 0
    for word in answer.words:
        yield answer.delay
        yield chunk({"content": word})
        said += 1
    for index, call in enumerate(answer.calls):
        opening = {"index": index, "id": call.id, "type": "function"}
        yield chunk({"tool_calls": [{**opening, "function": {"name": call.name, "arguments": ""}}]})
        for piece in _pieces(call.arguments):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if answer.tail is not None:
        yield from answer.tail
        return
    yield chunk({}, _finish(answer))
    if wants_usage:
        usage = _chat_usage(request, len(answer.reasoning) + said, len(answer.reasoning))
        yield _sse({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _chat_head(request: Request, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.body.get("model"),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }


def _chat_usage(request: Request, completion: int, reasoning: int) -> Json:
    prompt = 10 * len(request.items)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": len(request.items), "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish(answer: Answer) -> str:
    return answer.finish or ("tool_calls" if answer.calls else "stop")


def _response_whole(request: Request, answer: Answer) -> Json:
    said = tuple(answer.words)
    output = [_response_message("".join(said))] if said or not answer.calls else []
    output += [_response_call(call) for call in answer.calls]
    return _response_end(request, answer, _response_head(request), output, len(said))


def _response_stream(request: Request, answer: Answer) -> Iterator[Part]:
    numbers = itertools.count()
    head = _response_head(request)
    output: list[Json] = []

    def event(kind: str, **fields: Any) -> bytes:
        return _sse({"type": kind, "sequence_number": next(numbers), **fields}, named=True)

    yield event("response.created", response=head)
    yield event("response.in_progress", response=head)
    said: list[str] = []
    if not answer.calls or answer.words:
        message = _response_message("")
        at = {"output_index": 0, "item_id": message["id"], "content_index": 0}
        opening = {**message, "status": "in_progress", "content": []}
        yield event("response.output_item.added", output_index=0, item=opening)
        yield event("response.content_part.added", **at, part=message["content"][0])
        for word in answer.words:
            yield answer.delay
            yield event("response.output_text.delta", **at, delta=word, logprobs=[])
            # An endless answer is never rendered as a whole.
            if not isinstance(answer.words, itertools.repeat):
                said.append(word)
        if answer.tail is not None:
            yield from answer.tail
            return
        message["content"][0]["text"] = "".join(said)
        yield event("response.output_text.done", **at, text="".join(said), logprobs=[])
        yield event("response.content_part.done", **at, part=message["content"][0])
        yield event("response.output_item.done", output_index=0, item=message)
        output.append(message)
    for call in answer.calls:
        item, index = _response_call(call), len(output)
        at = {"output_index": index, "item_id": item["id"]}
        opening = {**item, "status": "in_progress", "arguments": ""}
        yield event("response.output_item.added", output_index=index, item=opening)
        for piece in _pieces(call.arguments):
            yield event("response.function_call_arguments.delta", **at, delta=piece)
        yield event("response.function_call_arguments.done", **at, arguments=call.arguments)
        yield event("response.output_item.done", output_index=index, item=item)
        output.append(item)
    response = _response_end(request, answer, head, output, len(said))
    yield event(f"response.{response['status']}", response=response)


def _response_head(request: Request) -> Json:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": request.body.get("instructions"),
        "metadata": request.body.get("metadata") or {},
        "model": request.body.get("model"),
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": request.body.get("previous_response_id"),
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": request.body.get("tool_choice") or "auto",
        "tools": request.body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
    }


def _response_end(request: Request, answer: Answer, head: Json, output: list[Json], said: int) -> Json:
    reason = INCOMPLETE_REASONS.get(answer.finish or "")
    prompt, completion = 10 * len(request.items), len(answer.reasoning) + said
    return {
        **head,
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": len(request.items), "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": len(answer.reasoning)},
            "total_tokens": prompt + completion,
        },
    }


def _response_message(text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message_id = f"msg_{uuid.uuid4().hex}"
    return {"id": message_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _response_call(call: Call) -> Json:
    item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "status": "completed"}
    return {**item, "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _pieces(arguments: str) -> list[str]:
    return [arguments[start : start + 8] for start in range(0, len(arguments), 8)]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _sse(value: Json, *, named: bool = False) -> bytes:
    return (f"event: {value['type']}\n".encode() if named else b"") + b"data: " + _dump(value) + b"\n\n"


# The server.


class FakeUpstream:
    """The server, in a thread of the test process while the `with` block lasts.

    Exiting the block re-raises an exception of a handler; its client received a 500.

    Args:
        handler: Called for each request except those for the list of models, in the server's event loop, so it must
            not block. It may delegate to `scripted`.
        port: The port on 127.0.0.1; 0 selects a free one.
        models: The models that `/v1/models` lists. Requests for other models are answered as well.
    """

    def __init__(
        self, handler: Handler = scripted, *, port: int = 0, models: Iterable[str] = ("test-model", "other-model")
    ) -> None:
        self.handler = handler
        self.port = port
        self.models = tuple(models)
        self._records: list[Record] = []
        self._changed = threading.Condition()
        self._failures: list[Exception] = []
        self._connections: set[asyncio.Task[Any]] = set()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def base_url(self) -> str:
        """The base URL for clients, including `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def records(self) -> list[Record]:
        """All requests so far, in the order of arrival."""
        return list(self._records)

    def wait_for_records(self, count: int = 1, timeout: float = 5.0) -> list[Record]:
        """Wait until `count` requests have arrived.

        Raises:
            TimeoutError: Fewer requests arrived within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._records) >= count, timeout):
                raise TimeoutError(f"{len(self._records)} of {count} requests arrived within {timeout} s")
        return self.records

    def reset(self) -> None:
        """Delete all records."""
        with self._changed:
            self._records = []

    def start(self) -> None:
        """Start the server in a thread. A stopped server can be started again, on the same port.

        Raises:
            OSError: The port is taken.
        """
        started = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self.serve(started.set))
            except BaseException as error:
                failed.append(error)
                started.set()

        self._thread = threading.Thread(target=run, name="fake-upstream", daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise TimeoutError("the upstream did not start within 10 s")
        if failed:
            raise failed[0]

    def stop(self) -> None:
        """Close every connection and the port."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stop()
        thread.join(10)
        if thread.is_alive():
            raise TimeoutError("the upstream did not stop within 10 s; a handler blocks it")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._failures and error is None:
            raise self._failures[0]

    async def serve(self, started: Callable[[], object]) -> None:
        """Serve in this event loop until it is stopped; `started` is called when the port is known."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
        transports: set[asyncio.BaseTransport] = set()
        server = await loop.create_server(lambda: _Protocol(self._connection, transports), "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        started()
        await stopping.wait()
        server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for transport in transports:
            # The task of a connection that was just accepted has not run, so it does not close its connection.
            transport.abort()  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while (request := await _read(reader)) is not None:
                if not await self._exchange(request, writer, gone):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client disconnected within a request
        except asyncio.CancelledError:
            # The server stops. Closing would wait for a client that may not be reading.
            writer.transport.abort()
        finally:
            writer.close()

    async def _exchange(self, request: Request, writer: asyncio.StreamWriter, gone: asyncio.Event) -> bool:
        """Answer one request. Return whether the connection can be reused."""
        if request.path.startswith("/_"):
            return await _send(writer, await self._about_itself(request))
        record = Record(request)
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()
        sending = asyncio.ensure_future(self._answer(request, writer))
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not isinstance(sending.exception(), ConnectionError):
                return sending.result()
            with self._changed:
                record.closed_at = time.time()
                record.closed_early.set()
            return False
        finally:
            sending.cancel()
            leaving.cancel()
            record.finished.set()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await _send(writer, await self._decide(request)) and request.headers.get("connection") != "close"

    async def _decide(self, request: Request) -> Reply:
        if request.path.startswith("/v1/models"):
            return self._list_models(request.path)
        try:
            answer = self.handler(request)
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, Reply):
                return answer
            if request.path not in (CHAT, RESPONSES) or not isinstance(request.body, dict):
                return error_reply(404, f"Unknown request: {request.method} {request.path}")
            return render(request, answer)
        except Exception as error:
            self._failures.append(error)
            return error_reply(500, f"The test's handler failed: {error!r}")

    def _list_models(self, path: str) -> Reply:
        listed = [
            {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "tests"} for name in self.models
        ]
        name = path.removeprefix("/v1/models").removeprefix("/")
        if not name:
            return json_reply({"object": "list", "data": listed})
        found = [model for model in listed if model["id"] == name]
        return json_reply(found[0]) if found else error_reply(404, f"The model '{name}' does not exist")

    async def _about_itself(self, request: Request) -> Reply:
        """`GET /_records`, `POST /_reset`, `GET /_wait_closed?n=1&timeout=2`: for tests in another process."""
        if request.path == "/_records":
            return json_reply([record.as_json() for record in self.records])
        if request.path == "/_reset":
            self.reset()
            return json_reply({})
        if request.path == "/_wait_closed":
            wanted, limit = (
                int(request.query.get("n", "1")),
                time.monotonic() + float(request.query.get("timeout", "2")),
            )
            while (closed := sum(record.closed_early.is_set() for record in self.records)) < wanted:
                if time.monotonic() > limit:
                    return json_reply({"closed": closed}, 408)
                await asyncio.sleep(0.005)
            return json_reply({"closed": closed})
        return error_reply(404, f"No such page: {request.path}")


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream that detects a disconnect at once, even while no task reads from it."""

    def __init__(
        self,
        serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Event], Awaitable[None]],
        transports: set[asyncio.BaseTransport],
    ) -> None:
        self.gone = asyncio.Event()
        self._open = transports
        super().__init__(asyncio.StreamReader(limit=2**20), lambda reader, writer: serve(reader, writer, self.gone))

    def eof_received(self) -> bool | None:
        self.gone.set()
        return super().eof_received()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._open.difference_update([transport for transport in self._open if transport.is_closing()])
        super().connection_lost(exc)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    method, target, _ = head[0].split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    if headers.get("transfer-encoding") == "chunked":
        raw = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            raw += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    return Request(method, url.path, query, headers, body, raw, time.time())


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Send a reply. Return whether the connection can be reused."""
    headers_sent, sent = False, 0
    for part in reply.parts:
        # Drain here, not after a write: the last bytes and the end of the body must be sent together. Otherwise a
        # client that closes after `[DONE]` would be recorded as disconnected early.
        await writer.drain()
        await asyncio.sleep(0)
        if isinstance(part, bytes):
            if not headers_sent:
                writer.write(_head(reply))
                headers_sent = True
            sent += len(part)
            writer.write(part if reply.length is not None else b"%x\r\n%b\r\n" % (len(part), part) if part else b"")
        elif isinstance(part, float | int):
            await asyncio.sleep(part)
        elif isinstance(part, threading.Event):
            while not part.is_set():
                await asyncio.sleep(0.002)
        else:
            await _break(writer, part)
            return False
    if not headers_sent:
        writer.write(_head(reply))
    if reply.length is None:
        writer.write(b"0\r\n\r\n")
        return True
    return sent == reply.length


def _head(reply: Reply) -> bytes:
    framing = ("transfer-encoding", "chunked") if reply.length is None else ("content-length", str(reply.length))
    lines = [*reply.headers.items(), ("x-request-id", f"req_{uuid.uuid4().hex}"), framing]
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {reply.status} Scripted\r\n{text}\r\n".encode("latin-1")


async def _break(writer: asyncio.StreamWriter, fault: Fault) -> None:
    if fault is Fault.HANG:
        await asyncio.Event().wait()
    if fault is Fault.RESET:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


# A separate process.


@contextlib.contextmanager
def upstream_process() -> Iterator[str]:
    """Run the server in a separate process; yield the base URL, including `/v1`. `/_records` returns the records."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.support.upstream", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def _serve_process(port: int) -> None:
    upstream = FakeUpstream(port=port)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: upstream._stop())
    await upstream.serve(lambda: print(upstream.port, flush=True))


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible server for tests.")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve_process(parser.parse_args().port))


if __name__ == "__main__":
    main()
