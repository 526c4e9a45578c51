"""Odd framings and forms of both APIs over real HTTP: the client gets the text, or an error, never less text."""

import json

import pytest
from agents import function_tool

from tests.plugins.upstreams.test_odd_servers import SSE, USER, Place, ask, completion, events, gateway
from tests.support.upstream import Reply

DONE = b"data: [DONE]\n\n"
PLAIN = {"content-type": "text/plain"}
JSON = {"content-type": "application/json"}
HELLO = ("Hello", "stop", None)
STREAM = b"".join(events({"content": "Hel"}, {"content": "lo"})) + DONE
CHUNKS = [line[6:] for line in STREAM.split(b"\n\n") if line.startswith(b"data: {")]
WHOLE = json.dumps(completion(content="Hello"))


def pretty(chunk):
    return b"\ndata: ".join(json.dumps(json.loads(chunk), indent=1).encode().split(b"\n"))


OLLAMA = [
    {"model": "m", "message": {"role": "assistant", "content": "Hel"}, "done": False},
    {"model": "m", "message": {"role": "assistant", "content": "lo"}, "done": False},
    {
        "model": "m",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "eval_count": 2,
    },
]
GOOD = {
    "labelled as JSON": (STREAM, JSON),
    "labelled as text": (STREAM, PLAIN),
    "without a label": (STREAM, {}),
    "CR": (STREAM.replace(b"\n", b"\r"), SSE),
    "no spaces": (STREAM.replace(b"data: ", b"data:"), SSE),
    "upper case, indented": (STREAM.replace(b"data: ", b" DATA: "), SSE),
    "no empty lines": (STREAM.replace(b"\n\n", b"\n"), SSE),
    "no end": (STREAM.removesuffix(DONE).rstrip(), SSE),
    "text after the end": (STREAM + b"data: nonsense\n\n<html>", SSE),
    "several objects in a line": (b"data: " + b"".join(CHUNKS) + b"\n\n" + DONE, SSE),
    "all in one event": (b"data: " + b"\ndata: ".join([*CHUNKS, b"[DONE]"]) + b"\n\n", SSE),
    "an object over several lines": (b"data: " + b"\n\ndata: ".join(map(pretty, CHUNKS)) + b"\n\n" + DONE, SSE),
    "pings": (b": hi\n\nevent: ping\ndata: {}\n\ndata:\n\nid: 3\nretry: 5\nx-own: 1\n\n" + STREAM, SSE),
    "BOM": (b"\xef\xbb\xbf" + STREAM, SSE),
    "NDJSON of chunks": (b"\n".join(CHUNKS), {"content-type": "application/x-ndjson"}),
    "NDJSON as SSE": (b"\r\n".join(CHUNKS) + b"\r\n", SSE),
    "Ollama's": (b"\n".join(json.dumps(each).encode() for each in OLLAMA) + b"\n", PLAIN),
    "JSON": (WHOLE.encode(), JSON),
    "JSON labelled as a stream": (WHOLE.encode(), SSE),
    "pretty JSON": (json.dumps(json.loads(WHOLE), indent=2).encode() + b"\n", SSE),
    "JSON with a BOM": (b"\xef\xbb\xbf" + WHOLE.encode(), JSON),
    "JSON in an event": (b"data: " + WHOLE.encode() + b"\n\n" + DONE, SSE),
}  # fmt: skip
HALF = b"".join(events({"content": "Hel"})[:1])
DEEP = b'{"choices":' + b"[" * 900 + b"]" * 900 + b"}"
BAD = {
    "HTML": (b"<!doctype html>\n<html>\n\n<h1>Bad gateway</h1></html>", {"content-type": "text/html"}),
    "HTML as a stream": (b"<html>\n\n</html>", SSE),
    "text": (b"Internal Server Error", PLAIN),
    "text in a stream": (HALF + b"Internal Server Error\n\n" + STREAM, SSE),
    "nothing": (b"", SSE),
    "null": (b"null", JSON),
    "an event of an error": (HALF + b'event: error\ndata: {"message": "out of memory"}\n\n' + DONE, SSE),
    "an event of an error with text": (HALF + b"event: error\ndata: out of memory\n\n", SSE),
    "an error in a stream": (HALF + b'data: {"error": {"message": "x", "code": 500}}\n\n' + DONE, SSE),
    "an error as text": (HALF + b'data: {"error": "out of memory"}\n\n' + DONE, SSE),
    "an error line": (HALF + b"error: out of memory\n\n", SSE),
    "an error at the top": (b'{"detail": "out of memory"}', JSON),
    "an error message at the top": (b'{"object": "error", "message": "out of memory", "code": 500}', JSON),
    "half of an object": (HALF + b'data: {"choices": [{"del', SSE),
    "half": (HALF, SSE),
    "half, with an end": (HALF + DONE, SSE),
    "deep": (b"data: " + DEEP + b"\n\n", SSE),
    "deep, whole": (DEEP, JSON),
    "very deep": (b"data: " + DEEP.replace(b"[", b"[" * 200).replace(b"]", b"]" * 200) + b"\n\n", SSE),
}


async def answer_of(body, headers, *, stream, api="chat"):
    upstream, started = gateway(lambda request: Reply([body], 200, headers), api=api)
    with upstream:
        async with started as g:
            return await ask(g, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", GOOD)
async def test_text_arrives_in_any_framing(name, stream):
    assert await answer_of(*GOOD[name], stream=stream) == HELLO


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_answer_is_an_error(name, stream):
    assert await answer_of(*BAD[name], stream=stream) == (None, None, "upstream_error")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "slow down", "code": "rate_limit_exceeded"}, "upstream_rate_limited"),
        ({"message": "slow down", "code": 429}, "upstream_rate_limited"),
        ({"message": "x", "type": "overloaded_error"}, "upstream_error"),
        ({"message": "too long", "code": "context_length_exceeded"}, "context_length_exceeded"),
        ({"message": "maximum context length is 5", "type": "invalid_request_error"}, "context_length_exceeded"),
    ],
)
async def test_an_error_in_an_answer_keeps_its_meaning(error, code, stream):
    chat = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
    failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
    assert await answer_of(chat, SSE, stream=stream) == (None, None, code)
    body = b"data: " + json.dumps(failed).encode() + b"\n\n"
    assert await answer_of(body, SSE, stream=stream, api="responses") == (None, None, code)


def event(kind, typed=True, **value):
    data = json.dumps({"type": kind, **value} if typed else value)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message(text="Hello", **more):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}], **more}


def response(*output, status="completed", **more):
    return {"object": "response", "status": status, "output": list(output), **more}


DELTAS = event("response.output_text.delta", delta="Hel") + event("response.output_text.delta", delta="lo")
ADDED = event("response.output_item.added", item={"type": "message"})
COMPLETED = event("response.completed", response=response(message()))
R_GOOD = {
    "ordinary": (event("response.created", response={}) + ADDED + DELTAS + COMPLETED, SSE),
    "only the end": (COMPLETED, SSE),
    "done": (DELTAS + event("response.done", response=response(message())) + DONE, SSE),
    "no types": (
        event("response.output_text.delta", False, delta="Hello")
        + event("response.completed", False, response=response(message())),
        SSE,
    ),
    "no output at the end": (DELTAS + event("response.completed", response={"id": None, "usage": None}), SSE),
    "no response at the end": (DELTAS + event("response.completed"), SSE),
    "no end, text done": (ADDED + DELTAS + event("response.output_text.done", text="Hello"), SSE),
    "no end, item done": (DELTAS + event("response.output_item.done", item=message()) + DONE, SSE),
    "no deltas": (event("response.output_text.done", text="Hello"), SSE),
    "some deltas": (event("response.output_text.delta", delta="Hel") + COMPLETED, SSE),
    "NDJSON": (b"\n".join(line[6:] for line in (DELTAS + COMPLETED).split(b"\n") if line[:5] == b"data:"), PLAIN),
    "JSON": (json.dumps(response(message(), usage=None)).encode(), JSON),
    "bare": (json.dumps({"output": [{"role": "assistant", "content": "Hello"}]}).encode(), JSON),
    "reasoning without id": (json.dumps(response({"type": "reasoning"}, message())).encode(), JSON),
    "repeated ids": (
        json.dumps(response(message("Hel", id="a"), message("lo", id="a"), usage={"prompt_tokens": 3})).encode(),
        JSON,
    ),
}
R_GOOD |= {
    "text next to the items": (json.dumps(response(output_text="Hello")).encode(), JSON),
    "text in place of the items": (event("response.completed", response={"output": "Hello"}), SSE),
    "unknown item": (json.dumps(response({"type": "x_search_call", "id": "x"}, message())).encode(), JSON),
    "messages without a start": (
        event("response.output_text.delta", delta="Hel", item_id="a", output_index=0)
        + event("response.output_text.delta", delta="lo", item_id="b", output_index=1)
        + event("response.completed", response=response(message("Hel", id="a"), message("lo", id="b"))),
        SSE,
    ),
    "an index for each delta": (
        event("response.output_text.delta", delta="Hel", output_index=0)
        + event("response.output_text.delta", delta="lo", output_index=1)
        + COMPLETED,
        SSE,
    ),
}
CUT = {"status": "incomplete"}
R_ENDS = {
    "length": (event("response.incomplete", response=response(status="incomplete")), ("", "length", None)),
    "reason": (
        DELTAS + event("response.incomplete", response={"incomplete_details": {"reason": "max_output_tokens"}}),
        ("Hello", "length", None),
    ),
    "filter": (
        event("response.completed", response=response(incomplete_details={"reason": "content_filter"}, **CUT)),
        ("", "content_filter", None),
    ),
    "refusal": (
        event("response.completed", response=response({**message(), "content": [{"refusal": "No"}]})),
        ("No", "content_filter", None),
    ),
}
R_BAD = {
    "half": DELTAS,
    "half, with an end": DELTAS + DONE,
    "failed": DELTAS + event("response.failed", response={"error": {"code": "server_error", "message": "x"}}),
    "failed, as completed": event("response.completed", response=response(status="failed")),
    "cancelled": event("response.cancelled", response={}),
    "error": DELTAS + event("error", code="x", message="y"),
    "error as data": DELTAS + b'data: {"error": {"message": "y"}}\n\n',
    "HTML": b"<html></html>",
    "nothing": DONE,
    "a call that is not complete": event("response.output_item.added", item={"type": "function_call", "name": "look"}),
    "chat": STREAM,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", R_GOOD)
async def test_responses_arrive_in_any_form(name, stream):
    text, finish, code = await answer_of(*R_GOOD[name], stream=stream, api="responses")
    assert (text.replace("\n", ""), finish, code) == HELLO


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", R_ENDS)
async def test_a_response_that_is_cut_off_ends_with_its_finish_reason(name, stream):
    body, expected = R_ENDS[name]
    text, *end = await answer_of(body, SSE, stream=stream, api="responses")
    assert end == list(expected[1:])
    assert name == "filter" or text == expected[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", R_BAD)
async def test_what_is_no_response_is_an_error(name, stream):
    assert await answer_of(R_BAD[name], SSE, stream=stream, api="responses") == (None, None, "upstream_error")


@function_tool
def look(city: str) -> str:
    """Look."""
    return f"sunny in {city}"


def call(city, **more):
    return {"type": "function_call", "name": "look", "arguments": {"city": city}, **more}


def parts_of(city, **more):
    text = json.dumps({"city": city})
    return (
        event("response.output_item.added", output_index=0, item={"type": "function_call", "name": "look", **more})
        + event("response.function_call_arguments.delta", output_index=0, delta=text[:5])
        + event("response.function_call_arguments.delta", output_index=0, delta=text[5:])
        + event("response.function_call_arguments.done", output_index=0, arguments=text)
    )


CITIES = ("Oslo", "Rome")


def interleaved():
    """The events of two calls without ids, whose arguments arrive in turn."""
    for index in (0, 1):
        yield event("response.output_item.added", output_index=index, item={"type": "function_call", "name": "look"})
    for part in (slice(5), slice(5, None)):
        for index, city in enumerate(CITIES):
            delta = json.dumps({"city": city})[part]
            yield event("response.function_call_arguments.delta", output_index=index, delta=delta)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "calls",
    [
        json.dumps(response(call("Oslo"), call("Rome"))).encode(),
        json.dumps(response(call("Oslo", call_id="", id="a"), call("Rome", call_id="", id="a"))).encode(),
        json.dumps(response(call("Oslo", call_id="c"), call("Rome", call_id="c"))).encode(),
        json.dumps(response(message("", tool_calls=[{"function": call("Oslo")}, {"function": call("Rome")}]))).encode(),
        event("response.output_item.done", item=call("Oslo")) + event("response.output_item.done", item=call("Rome")),
        event("response.output_item.done", item=call("Oslo", call_id="c"))
        + event("response.completed", response=response(call("Oslo", call_id="c"), call("Rome", call_id="c"))),
        parts_of("Oslo", call_id="c") + parts_of("Rome", call_id="c") + event("response.completed"),
        parts_of("Oslo") + parts_of("Rome") + DONE,
        json.dumps(
            response(*({**call(city), "arguments": json.dumps(json.dumps({"city": city}))} for city in CITIES))
        ).encode(),
        b"".join(interleaved()) + event("response.completed", response=response()),
    ],
)
async def test_the_calls_of_a_response_run_twice(calls, stream):
    """In two rounds with the same ids."""

    def handler(request):
        outputs = [item["output"] for item in request.items if item.get("type") == "function_call_output"]
        body = json.dumps(response(message(" | ".join(outputs)))).encode()
        return Reply([body if len(outputs) == 4 else calls], 200, SSE)

    upstream, started = gateway(handler, tools=[look], api="responses")
    with upstream:
        async with started as g:
            expected = "sunny in Oslo | sunny in Rome | sunny in Oslo | sunny in Rome"
            assert await ask(g, stream=stream) == (expected, "stop", None)
    sent = upstream.records[-1].request.items
    ids = [item["call_id"] for item in sent if item.get("type") == "function_call"]
    assert len(set(ids)) == 4
    own = [item["id"] for item in sent if item.get("id")]
    assert len(set(own)) == len(own)


PLACE = '{"city": "Oslo"}'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize(
    "text",
    [PLACE, f"```json\n{PLACE}\n```", f'<think>{{"a": 1}}</think>\n{PLACE}', f"Here: {PLACE}", f"{PLACE}\n\nBye {{}}"],
)
async def test_structured_responses_are_json_only(text, size, stream):
    deltas = [event("response.output_text.delta", delta=text[at : at + size]) for at in range(0, len(text), size)]
    body = ADDED + b"".join(deltas) + event("response.completed", response=response(message(text)))
    upstream, started = gateway(lambda request: Reply([body], 200, SSE), api="responses", output_type=Place)
    with upstream:
        async with started as g:
            assert await ask(g, stream=stream) == (PLACE, "stop", None)


async def test_the_usage_and_the_reasoning_of_a_response_arrive():
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    ended = response({"type": "reasoning", "summary": None}, message(), usage=usage)
    body = event("response.reasoning_text.delta", delta="hmm") + event("response.completed", response=ended)
    upstream, started = gateway(lambda request: Reply([body], 200, SSE), api="responses")
    with upstream:
        async with started as g:
            answer = await g.openai.chat.completions.create(model="X", messages=USER)
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
            thought = ""
            async for chunk in await g.openai.chat.completions.create(model="X", messages=USER, stream=True):
                thought += (chunk.choices[0].delta.model_extra or {}).get("reasoning_content") or ""
            assert thought == "hmm"
