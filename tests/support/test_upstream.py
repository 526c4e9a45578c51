"""Tests of the fake upstream with the official `openai` client."""

import itertools
import json
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from agents import Agent, MultiProvider, RunConfig, Runner, function_tool

from tests.support.upstream import Answer, Call, FakeUpstream, Reply, Request, scripted, upstream_process, words

TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
RESPONSE_TOOLS: Any = [{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}]


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def client(upstream: FakeUpstream) -> Iterator[openai.OpenAI]:
    with connect(upstream.base_url) as client:
        yield client


def connect(base_url: str) -> openai.OpenAI:
    # Strict validation: the response must match OpenAI's format exactly.
    return openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=5, _strict_response_validation=True)


def ask(client: openai.OpenAI, text: str, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more)


def deltas(chunks: Any) -> list[str]:
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]


def read_raw(upstream: FakeUpstream, text: str, path: str = "chat/completions") -> bytes:
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}).encode()
    with urllib.request.urlopen(f"{upstream.base_url}/{path}", body, timeout=5) as response:
        raw: bytes = response.read()
    return raw


def test_a_whole_answer_has_the_words_and_the_usage(client: openai.OpenAI) -> None:
    completion = ask(client, "say: some plain words")
    assert completion.choices[0].message.content == "some plain words"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == "m"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (10, 3)
    assert completion.usage.prompt_tokens_details.cached_tokens == 1


def test_a_streamed_answer_sends_one_word_a_chunk(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "say: some plain words", stream=True))
    assert deltas(chunks) == ["some", " plain", " words"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_is_streamed_only_on_request(client: openai.OpenAI) -> None:
    chunks = list(
        ask(client, "reasoning: I think | answer: so it is", stream=True, stream_options={"include_usage": True})
    )
    assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 5, 15)
    assert usage.completion_tokens_details.reasoning_tokens == 2


def test_reasoning_comes_before_the_answer(client: openai.OpenAI) -> None:
    streamed = [chunk.choices[0].delta for chunk in ask(client, "reasoning: I think | answer: so it is", stream=True)]
    told = [(getattr(delta, "reasoning_content", None), delta.content) for delta in streamed]
    assert told[1:3] == [("I", None), (" think", None)]
    assert [content for _, content in told[3:6]] == ["so", " it", " is"]
    assert ask(client, "reasoning: I think | answer: so").choices[0].message.reasoning_content == "I think"


def test_the_wire_is_byte_for_byte_server_sent_events(upstream: FakeUpstream) -> None:
    raw = read_raw(upstream, "say: hi")
    *events, done, rest = raw.split(b"\n\n")
    assert done == b"data: [DONE]"
    assert rest == b""
    parsed = [json.loads(event.removeprefix(b"data: ")) for event in events]
    assert {event["object"] for event in parsed} == {"chat.completion.chunk"}
    assert not any("usage" in event for event in parsed)


@pytest.mark.parametrize("text", ["echo", "two  spaces,\na line break and ünïcödé ", "call me maybe"])
def test_anything_else_is_echoed(client: openai.OpenAI, text: str) -> None:
    assert ask(client, text).choices[0].message.content == text
    assert "".join(deltas(ask(client, text, stream=True))) == text


def test_text_parts_are_understood(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "say: from parts"}]}]
    completion = client.chat.completions.create(model="m", messages=messages)
    assert completion.choices[0].message.content == "from parts"


def test_an_empty_answer_is_empty(client: openai.OpenAI) -> None:
    assert ask(client, "say nothing").choices[0].message.content == ""
    assert deltas(ask(client, "say nothing", stream=True)) == []


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_result_returned(client: openai.OpenAI, streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": 'please call add {"a": 1, "b": {"c": "}"}} now'}]
    calls, finish = _calls(client, messages, streamed)
    assert finish == "tool_calls"
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("add", {"a": 1, "b": {"c": "}"}})]
    messages += _round(calls, "3")
    completion = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert completion.choices[0].message.content == "tool said: 3"


def test_without_tools_nothing_is_called(client: openai.OpenAI) -> None:
    assert ask(client, "call add {}").choices[0].message.content == "call add {}"


def test_several_calls_at_once_and_one_after_the_other(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": 'call add {"n": 1} call sub {"n": 2} then call add {"n": 3}'}]
    calls, _ = _calls(client, messages, streamed=True)
    assert [(call["name"], call["arguments"]) for call in calls] == [("add", '{"n": 1}'), ("sub", '{"n": 2}')]
    messages += _round(calls, "first")
    calls, _ = _calls(client, messages, streamed=False)
    assert [(call["name"], call["arguments"]) for call in calls] == [("add", '{"n": 3}')]
    messages += _round(calls, "second")
    completion = client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert completion.choices[0].message.content == "tool said: second"


def test_always_calls_again(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "always call add {}"}]
    for _ in range(3):
        calls, _ = _calls(client, messages, streamed=False)
        assert calls
        messages += _round(calls, "more")


def test_a_new_user_message_starts_a_new_round(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "call add {}"}]
    messages += [*_round([{"id": "c1", "name": "add", "arguments": "{}"}], "3"), {"role": "assistant", "content": "3"}]
    messages.append({"role": "user", "content": "call add {}"})
    calls, _ = _calls(client, messages, streamed=False)
    assert len(calls) == 1


def _calls(client: openai.OpenAI, messages: list[Any], streamed: bool) -> tuple[list[dict[str, str]], str]:
    if not streamed:
        choice = client.chat.completions.create(model="m", messages=messages, tools=TOOLS).choices[0]
        found: Any = choice.message.tool_calls
        assert choice.message.content is None
        whole = [{"id": c.id, "name": c.function.name, "arguments": c.function.arguments} for c in found]
        return whole, choice.finish_reason
    calls: list[dict[str, str]] = []
    finish = ""
    for chunk in client.chat.completions.create(model="m", messages=messages, tools=TOOLS, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            assert delta.function is not None
            if delta.id:
                assert delta.index == len(calls)
                calls.append({"id": delta.id, "name": delta.function.name or "", "arguments": ""})
            calls[delta.index]["arguments"] += delta.function.arguments or ""
        finish = chunk.choices[0].finish_reason or finish
    return calls, finish


def _round(calls: list[dict[str, str]], output: str) -> list[dict[str, Any]]:
    called = [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls
    ]
    answered = [{"role": "tool", "tool_call_id": call["id"], "content": output} for call in calls]
    return [{"role": "assistant", "content": None, "tool_calls": called}, *answered]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fail 401", openai.AuthenticationError),
        ("fail 429 7", openai.RateLimitError),
        ("fail 500", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_http_errors(client: openai.OpenAI, text: str, error: type[openai.APIStatusError], streamed: bool) -> None:
    with pytest.raises(error) as caught:
        ask(client, text, stream=streamed)
    assert caught.value.response.headers.get("retry-after") == ("7" if "7" in text else None)
    assert "told to fail" in caught.value.message


@pytest.mark.parametrize(("text", "reason"), [("filter", "content_filter"), ("length", "length")])
def test_finish_reasons(client: openai.OpenAI, text: str, reason: str) -> None:
    assert ask(client, text).choices[0].finish_reason == reason
    assert [chunk.choices[0].finish_reason for chunk in ask(client, text, stream=True)][-1] == reason


def test_slow_takes_its_time(client: openai.OpenAI) -> None:
    begun = time.monotonic()
    stream = iter(ask(client, "slow 0.05 6", stream=True))
    next(stream)
    first = time.monotonic() - begun
    assert len(deltas(stream)) == 6
    assert first < time.monotonic() - begun >= 0.3
    begun = time.monotonic()
    assert ask(client, "slow 0.05 6").usage.completion_tokens == 6
    assert time.monotonic() - begun >= 0.3


def test_hang_sends_no_headers_and_detects_the_disconnect(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client, "hang", stream=True, timeout=0.2)
    assert upstream.records[0].closed_early.wait(30)


def test_hang_after_falls_silent(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    chunks: list[Any] = []
    with pytest.raises(openai.APITimeoutError):
        chunks.extend(ask(client, "hang-after 3", stream=True, timeout=3))
    assert deltas(chunks) == ["t0", " t1", " t2"]
    assert upstream.records[0].closed_early.wait(30)


def test_a_reset_is_a_reset(upstream: FakeUpstream) -> None:
    with _raw_request(upstream, "rst 5") as connection:
        received: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            received.extend(iter(lambda: connection.recv(65536), b""))
    assert b"".join(received).count(b'"content":"') == 6  # an empty one with the role, and five tokens


def test_a_cut_is_an_orderly_close_within_the_body(upstream: FakeUpstream) -> None:
    with _raw_request(upstream, "cut 5") as connection:
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" t4" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_noend_ends_the_body_without_a_finish_reason(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    chunks = list(ask(client, "noend 5", stream=True))
    assert len(deltas(chunks)) == 5
    assert not any(chunk.choices[0].finish_reason for chunk in chunks)
    assert b"[DONE]" not in read_raw(upstream, "noend 5")


@pytest.mark.parametrize("text", ["hang-after 3", "rst 5", "cut 5", "noend 5"])
def test_a_whole_answer_is_interrupted_in_its_middle(client: openai.OpenAI, text: str) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client, text, timeout=0.3)


def test_broken_bodies(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    with pytest.raises(ValueError, match="property name"):
        list(ask(client, "garbage", stream=True))
    with pytest.raises(openai.APIError, match="broke down"):
        list(ask(client, "error-in-200", stream=True))
    with pytest.raises(UnicodeDecodeError):
        read_raw(upstream, "badutf8").decode()
    with pytest.raises(openai.APIError):
        ask(client, "garbage")
    with pytest.raises(openai.APIError):
        ask(client, "error-in-200")
    with pytest.raises(UnicodeDecodeError):
        ask(client, "badutf8")
    assert [len(delta) for delta in deltas(ask(client, "long-line", stream=True))] == [1_000_000]


def test_endless_continues_until_the_client_disconnects(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    with ask(client, "endless", stream=True) as stream:
        assert len(deltas(itertools.islice(stream, 1000))) >= 999
    assert upstream.records[0].closed_early.wait(30)


def test_only_a_client_that_disconnects_counts_as_closed_early(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    list(ask(client, "slow 0.01 5", stream=True))
    left_at = time.time()
    with ask(client, "slow 0.05 200", stream=True) as stream:
        next(iter(stream))
        left_at = time.time()
    stayed, left = upstream.records
    assert left.closed_early.wait(30)
    assert left.closed_at is not None
    assert 0 <= left.closed_at - left_at < 1
    client.close()
    assert stayed.finished.wait(2)
    assert not stayed.closed_early.is_set()


def test_closing_after_done_is_not_an_early_disconnect(upstream: FakeUpstream) -> None:
    for _ in range(50):
        with _raw_request(upstream, "say: hi") as connection:
            received = b""
            while b"[DONE]" not in received:
                received += connection.recv(65536)
    assert all(record.finished.wait(2) for record in upstream.wait_for_records(50))
    assert not any(record.closed_early.is_set() for record in upstream.records)


def test_a_reset_by_the_client_is_detected(upstream: FakeUpstream) -> None:
    with _raw_request(upstream, "hang-after 1") as connection:
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert upstream.records[0].closed_early.wait(30)


def _raw_request(upstream: FakeUpstream, text: str) -> socket.socket:
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}).encode()
    connection = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_requests_are_recorded(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    before = time.time()
    ask(client, "say: hi", extra_headers={"X-Mine": "yes"}, temperature=0.5)
    (record,) = upstream.wait_for_records(1)
    assert (record.request.method, record.request.path) == ("POST", "/v1/chat/completions")
    assert record.request.headers["x-mine"] == "yes"
    assert record.request.headers["authorization"] == "Bearer any"
    assert record.body["temperature"] == 0.5
    assert before <= record.request.time <= time.time()
    upstream.reset()
    assert upstream.records == []
    with pytest.raises(TimeoutError, match="0 of 1"):
        upstream.wait_for_records(1, timeout=0.01)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["test-model", "other-model"]
    assert client.models.retrieve("other-model").id == "other-model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("absent")


def test_a_handler_answers_and_may_wait_for_the_test() -> None:
    go_on = threading.Event()

    async def handler(request: Request) -> Answer | Reply:
        if request.user_text == "wait":
            return Answer(words("now this"), tail=(go_on, b"data: [DONE]\n\n"))
        if request.user_text == "call":
            return Answer(words("I look."), calls=(Call("look", "{}", id="call_1"),))
        return scripted(request)

    with FakeUpstream(handler) as upstream, connect(upstream.base_url) as client:
        stream = iter(ask(client, "wait", stream=True))
        assert deltas(itertools.islice(stream, 3)) == ["now", " this"]
        assert not upstream.records[0].finished.is_set()
        go_on.set()
        assert list(stream) == []
        message = ask(client, "call").choices[0].message
        assert (message.content, message.tool_calls[0].id) == ("I look.", "call_1")
        assert ask(client, "say: else").choices[0].message.content == "else"


def test_a_handler_that_fails_fails_the_test() -> None:
    def handler(request: Request) -> Answer:
        raise LookupError("my own mistake")

    with (
        pytest.raises(LookupError, match="my own mistake"),
        FakeUpstream(handler) as upstream,
        connect(upstream.base_url) as client,
        pytest.raises(openai.InternalServerError),
    ):
        ask(client, "hello")


def test_it_can_stop_and_restart_on_its_port() -> None:
    with FakeUpstream() as upstream, connect(upstream.base_url) as client:
        stream = ask(client, "hang-after 1", stream=True)
        upstream.stop()
        with pytest.raises(openai.APIConnectionError):
            list(stream)
        with pytest.raises(openai.APIConnectionError):
            ask(client, "say: hi")
        upstream.start()
        assert ask(client, "say: back").choices[0].message.content == "back"


def test_a_taken_port_is_an_error(upstream: FakeUpstream) -> None:
    with pytest.raises(OSError, match="address already in use"):
        FakeUpstream(port=upstream.port).start()


def test_responses_whole(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="say: some words", instructions="Be brief.")
    assert response.output_text == "some words"
    assert response.status == "completed"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (20, 2)


def test_responses_streamed(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="m", input="say: some words", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["some", " words"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "some words"


@pytest.mark.parametrize("streamed", [False, True])
def test_responses_call_tools(client: openai.OpenAI, streamed: bool) -> None:
    conversation: list[Any] = [{"role": "user", "content": 'call add {"a": 1}'}]
    if streamed:
        with client.responses.stream(model="m", input=conversation, tools=RESPONSE_TOOLS) as stream:
            response: Any = stream.get_final_response()
    else:
        response = client.responses.create(model="m", input=conversation, tools=RESPONSE_TOOLS)
    (call,) = response.output
    assert (call.type, call.name, call.arguments) == ("function_call", "add", '{"a": 1}')
    conversation += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "2"},
    ]
    assert client.responses.create(model="m", input=conversation, tools=RESPONSE_TOOLS).output_text == "tool said: 2"


def test_responses_misbehave_too(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    response = client.responses.create(model="m", input="length")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    *_, last = client.responses.create(model="m", input="error-in-200", stream=True)
    assert last.type == "error"
    with client.responses.create(model="m", input="endless", stream=True) as stream:
        next(iter(stream))
    assert upstream.records[-1].closed_early.wait(30)


async def test_the_sdk_calls_tools_and_hands_off(upstream: FakeUpstream) -> None:
    @function_tool
    def add(a: int, b: int) -> int:
        return a + b

    counter = Agent(name="Counter", tools=[add])
    client = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="any", max_retries=0)
    provider = MultiProvider(openai_client=client, openai_use_responses=False)
    run_config = RunConfig(model_provider=provider, model="m", tracing_disabled=True)
    text = 'call transfer_to_counter {} then call add {"a": 1, "b": 2}'
    async with client:
        result = Runner.run_streamed(Agent(name="First", handoffs=[counter]), text, run_config=run_config)
        assert [event async for event in result.stream_events()]
    assert result.last_agent is counter
    assert result.final_output == "tool said: 3"
    assert [len(record.body["messages"]) for record in upstream.records] == [1, 3, 5]


def test_in_a_separate_process() -> None:
    with upstream_process() as base_url, connect(base_url) as client:
        root = base_url.removesuffix("/v1")
        with ask(client, "endless", stream=True) as stream:
            next(iter(stream))
        assert _get(f"{root}/_wait_closed?n=1&timeout=2") == {"closed": 1}
        (record,) = _get(f"{root}/_records")
        assert record["path"] == "/v1/chat/completions"
        assert record["closed_early"]
        assert record["body"]["messages"][0]["content"] == "endless"
        urllib.request.urlopen(f"{root}/_reset", b"", timeout=5).close()
        assert _get(f"{root}/_records") == []
        with pytest.raises(urllib.error.HTTPError, match="408"):
            _get(f"{root}/_wait_closed?timeout=0.01")


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)
