"""Odd answers of a model server over real HTTP, through the gateway to its client."""

import gzip
import json
import zlib
from contextlib import asynccontextmanager

import openai
import pytest
from agents import Agent, ToolOutputImage, function_tool
from pydantic import BaseModel

from gateway_core.testing import gateway_in_memory
from tests.support.upstream import Answer, FakeUpstream, Reply, error_reply, json_reply

USER = [{"role": "user", "content": "hi"}]
BOTH = pytest.mark.parametrize("stream", [False, True])
SSE = {"content-type": "text/event-stream"}


@function_tool
def look(city: str) -> str:
    """Look."""
    return f"sunny in {city}"


@function_tool
def shot() -> ToolOutputImage:
    """Take a picture."""
    return ToolOutputImage(image_url="data:image/png;base64,iVBORw0KGgo=")


def completion(finish="stop", **message):
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def events(*deltas, finish="stop"):
    """The events of a stream with these deltas."""
    values = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    values.append({"index": 0, "delta": {}, "finish_reason": finish})
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return [b"data: " + json.dumps({**head, "choices": [value]}).encode() + b"\n\n" for value in values]


def reply(request, finish="stop", **message):
    if not request.streamed:
        return json_reply(completion(finish, **message))
    return Reply([*events({"role": "assistant", **message}, finish=finish), b"data: [DONE]\n\n"], 200, SSE)


def gateway(handler, *, tools=(), output_type=None, **settings):
    """A model server, and a gateway that uses it; to be entered in this order."""
    upstream = FakeUpstream(handler)

    @asynccontextmanager
    async def started():
        config = {"plugins": {"upstreams": {"odd": {"base_url": upstream.base_url, "max_retries": 0, **settings}}}}
        async with gateway_in_memory(
            {"X": Agent(name="x", tools=list(tools), output_type=output_type)}, config=config
        ) as g:
            yield g

    return upstream, started()


async def ask(g, *, stream=False, **more):
    """The text, the finish reason and the error's code of an answer."""
    try:
        answer = await g.openai.chat.completions.create(model="X", messages=USER, stream=stream, **more)
        if not stream:
            return answer.choices[0].message.content, answer.choices[0].finish_reason, None
        text, finish = "", None
        async for chunk in answer:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        return text, finish, None
    except openai.APIError as error:
        return None, None, error.body["code"] if isinstance(error.body, dict) else error.code


@BOTH
@pytest.mark.parametrize("call_id", [None, "", "constant"])
async def test_a_tool_runs_whatever_the_ids_of_its_calls_are(call_id, stream):
    """Twice: the ids of both rounds are the same."""

    def handler(request):
        rounds = [message for message in request.body["messages"] if message["role"] == "tool"]
        if len(rounds) == 2:
            return reply(request, content=" | ".join(message["content"] for message in rounds))
        city = ["Oslo", "Rome"][len(rounds)]
        call = {"index": 0, "id": call_id, "function": {"name": "look", "arguments": {"city": city}}}
        return reply(request, "tool_calls", tool_calls=[call])

    upstream, started = gateway(handler, tools=[look])
    with upstream:
        async with started as g:
            assert await ask(g, stream=stream) == ("sunny in Oslo | sunny in Rome", "stop", None)
    sent = upstream.records[-1].body["messages"]
    ids = [call["id"] for message in sent for call in message.get("tool_calls", ())]
    assert len(set(ids)) == 2
    assert [message["tool_call_id"] for message in sent if message["role"] == "tool"] == ids


@BOTH
@pytest.mark.parametrize(
    ("finish", "message", "expected"),
    [
        ("length", {}, ("", "length")),
        ("max_tokens", {"reasoning_content": "hmm"}, ("", "length")),
        ("content_filter", {}, (None, "content_filter")),
        ("stop", {"refusal": "I can't help"}, ("I can't help", "content_filter")),
        ("eos", {"content": "done"}, ("done", "stop")),
    ],
)
async def test_an_end_without_text_is_no_failure(finish, message, expected, stream):
    upstream, started = gateway(lambda request: reply(request, finish, **message))
    with upstream:
        async with started as g:
            text, reason, code = await ask(g, stream=stream)
    assert (reason, code) == (expected[1], None)
    assert expected[0] is None or text == expected[0]


class Place(BaseModel):
    """A structured answer."""

    city: str


@BOTH
async def test_the_text_of_a_structured_answer_that_is_cut_off_arrives(stream):
    text = '{"city": "Os'
    upstream, started = gateway(lambda request: reply(request, "length", content=text), output_type=Place)
    with upstream:
        async with started as g:
            assert await ask(g, stream=stream) == (text, "length", None)


@BOTH
async def test_the_reasoning_of_an_answer_without_text_arrives(stream):
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    body = json.dumps({**completion("length", reasoning_content="hmm"), "usage": usage}).encode()
    upstream, started = gateway(lambda request: Reply([body], 200, {}))
    with upstream:
        async with started as g:
            answer = await g.openai.chat.completions.create(model="X", messages=USER, stream=stream)
            parts = [chunk.choices[0].delta async for chunk in answer] if stream else [answer.choices[0].message]
    assert "".join(getattr(part, "reasoning_content", None) or "" for part in parts) == "hmm"
    if not stream:
        assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("length", 7)


@BOTH
async def test_a_failed_answer_is_never_a_stop(stream):
    upstream, started = gateway(lambda request: reply(request, "error", content="half"))
    with upstream:
        async with started as g:
            assert (await ask(g, stream=stream))[2] == "upstream_error"


@pytest.mark.parametrize("form", ["array", "bom", "cr", "crlf", "pings", "split"])
async def test_the_framing_of_events_may_be_odd(form):
    parts = events({"content": "He"}, {"content": "llo"})
    done = b"data: [DONE]\n\n"
    match form:
        case "array":
            parts = [b"[" + b"\n,\n".join(part[6:].strip() for part in parts) + b"]"]
        case "bom":
            parts = [b"\xef\xbb\xbf" + parts[0], *parts[1:], done]
        case "cr":
            parts = [part.replace(b"\n", b"\r") for part in [*parts, done]]
        case "crlf":
            parts = [part.replace(b"\n", b"\r\n") for part in [*parts, done]]
        case "pings":
            ping = b'event: ping\ndata: {"type": "ping"}\n\ndata:\n\n: comment\n\nevent: ping\ndata: 12:00\n\n'
            parts = [ping, parts[0], ping, *parts[1:], ping, done]
        case "split":
            whole = b"".join(part.replace(b"\n", b"\r\n") for part in [*parts, done])
            parts = [whole[at : at + 1] for at in range(len(whole))]
    upstream, started = gateway(lambda request: Reply(parts, 200, SSE))
    with upstream:
        async with started as g:
            assert await ask(g, stream=True) == ("Hello", "stop", None)


@pytest.mark.parametrize("reasoning", [[{"type": "text", "text": "hmm"}], {"text": "hmm"}, 5])
async def test_reasoning_in_another_form_does_not_fail_a_stream(reasoning):
    parts = [*events({"content": "Hel", "reasoning_content": reasoning}, {"content": "lo"}), b"data: [DONE]\n\n"]
    upstream, started = gateway(lambda request: Reply(parts, 200, SSE))
    with upstream:
        async with started as g:
            assert await ask(g, stream=True) == ("Hello", "stop", None)


@BOTH
async def test_a_call_that_is_cut_off_does_not_run(stream):
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"city": "Os'}}
    upstream, started = gateway(lambda request: reply(request, "length", content="Hm", tool_calls=[call]), tools=[look])
    with upstream:
        async with started as g:
            assert await ask(g, stream=stream) == ("Hm", "length", None)
    assert sum(record.body is not None for record in upstream.records) == 1


async def test_done_without_a_finish_reason_is_an_error():
    parts = [*events({"content": "half"})[:-1], b"data: [DONE]\n\n"]
    upstream, started = gateway(lambda request: Reply(parts, 200, SSE))
    with upstream:
        async with started as g:
            assert (await ask(g, stream=True))[2] == "upstream_error"


async def test_a_whole_answer_for_a_stream_and_a_stream_for_a_whole_answer():
    def crossed(request):
        assert request.body["stream"] is request.streamed, "the field is always sent"
        if request.streamed:
            return json_reply(completion(content="Hello"))
        return Reply([*events({"content": "He"}, {"content": "llo"}), b"data: [DONE]\n\n"], 200, SSE)

    upstream, started = gateway(crossed)
    with upstream:
        async with started as g:
            assert await ask(g, stream=True) == ("Hello", "stop", None)
            assert await ask(g) == ("Hello", "stop", None)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("gemma does not support tools", "upstream_tools_unsupported"),
        ("This model's maximum context length is 8192 tokens", "context_length_exceeded"),
        ("the request was blocked by our content management policy", "content_filter"),
        ("temperature is too hot", "upstream_rejected_request"),
    ],
)
async def test_operators_read_why_an_upstream_refused_and_clients_a_code(message, code, caplog):
    said = f"{message}; key sk-abcdefghijk " + "x" * 1000
    upstream, started = gateway(lambda request: error_reply(400, said))
    with upstream:
        async with started as g:
            answer = await g.http.post("/v1/chat/completions", json={"model": "X", "messages": USER})
            request_id = answer.headers["x-request-id"]
            [recorded] = (await g.http.get(f"/admin/agents/errors/{request_id}")).json()["errors"]
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert message not in answer.text
    assert recorded["upstream"]["status"] == 400
    assert message in recorded["upstream"]["message"]
    assert message in caplog.text
    for text in (str(recorded), caplog.text):
        assert "sk-abcdefghijk" not in text
        assert "x" * 400 not in text


async def test_a_picture_of_a_tool_reaches_the_model():
    def handler(request):
        if any(message["role"] == "tool" for message in request.body["messages"]):
            return reply(request, content="seen")
        call = {"index": 0, "id": "a", "function": {"name": "shot", "arguments": "{}"}}
        return reply(request, "tool_calls", tool_calls=[call])

    upstream, started = gateway(handler, tools=[shot])
    with upstream:
        async with started as g:
            assert (await ask(g))[0].endswith("seen")
    assert "iVBORw0KGgo=" in json.dumps(upstream.records[-1].body["messages"])


async def test_efforts_that_only_the_upstream_knows_are_passed_on():
    upstream, started = gateway(lambda request: Answer(("ok",)), default_model="gpt-5.4")
    with upstream:
        async with started as g:
            assert (await ask(g, reasoning_effort="max"))[0] == "ok"
            refused = await g.http.post(
                "/v1/chat/completions", json={"model": "X", "messages": USER, "reasoning_effort": "very hard"}
            )
    assert upstream.records[-1].body["reasoning_effort"] == "max"
    assert refused.status_code == 400


async def test_compressed_bodies_are_read_within_the_limit_or_refused():
    body = json.dumps({"model": "X", "messages": USER}).encode()
    upstream, started = gateway(lambda request: Answer(("ok",)))

    async def post(content, encoding):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        return await g.http.post("/v1/chat/completions", content=content, headers=headers)

    with upstream:
        async with started as g:
            for encoding, content in (
                ("gzip", gzip.compress(body)),
                ("deflate", zlib.compress(body)),
                ("identity", body),
            ):
                assert (await post(content, encoding)).status_code == 200, encoding
            for encoding in ("zstd", "br", "gzip, gzip"):
                answer = await post(body, encoding)
                assert answer.status_code == 415
                assert encoding.split(",")[0] in answer.text
            assert (await post(body, "gzip")).status_code == 400
            bomb = gzip.compress(b" " * (g.gateway.config.http.max_body + 10))
            assert (await post(bomb, "gzip")).status_code == 413
