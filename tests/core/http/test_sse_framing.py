"""The bytes of every event stream: frames, blank lines, and the end. Parsers are lenient; this is not."""

import json
import re

import pytest
from agents import Agent, function_tool

from gateway_core.testing import call, gateway_in_memory, script

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
USER = [{"role": "user", "content": "hi"}]


def frames(body: bytes) -> list[bytes]:
    """The frames of a stream, each ended by exactly one blank line."""
    assert body.endswith(b"\n\n")
    assert not body.endswith(b"\n\n\n")
    assert b"\r" not in body
    found = body.removesuffix(b"\n\n").split(b"\n\n")
    assert all(frame and not frame.startswith(b"\n") and not frame.endswith(b"\n") for frame in found)
    return found


def chat_events(body: bytes) -> list[dict]:
    """The JSON of a chat stream's frames, checked for form, without `[DONE]`."""
    events = []
    for frame in frames(body):
        if frame == b": keep-alive":
            continue
        assert re.fullmatch(rb"data: [^\n]+", frame), frame
        events.append(frame.removeprefix(b"data: "))
    if b"[DONE]" in events:
        assert events.index(b"[DONE]") == len(events) - 1
        events.pop()
    return [json.loads(event) for event in events]


def response_events(body: bytes) -> list[dict]:
    """The JSON of a Responses stream's frames, checked for form."""
    events = []
    for number, frame in enumerate(frames(body)):
        match = re.fullmatch(rb"event: ([a-z_.]+)\ndata: ([^\n]+)", frame)
        assert match, frame
        event = json.loads(match[2])
        assert event["type"] == match[1].decode()
        assert event["sequence_number"] == number
        events.append(event)
    return events


@function_tool
def greet(name: str) -> str:
    """Greet."""
    return f"Hello\n\n{name}\r\n\ndata: [DONE]\n\n"


@function_tool(failure_error_function=None)
def fail() -> str:
    """Fail."""
    raise ValueError("broken")


def agent(*turns) -> dict[str, Agent]:
    return {"A": Agent(name="a", tools=[greet, fail], model=script(*turns))}


GOOD = (["I\n\ngreet. ", call("greet", name="Ann")], "Hello\r\n\ndata: [DONE]\n\nAnn")
BAD = (["I try. ", call("fail")],)


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("client", ["plain", "reasoning", "openwebui"])
async def test_a_chat_stream(client, usage):
    async with gateway_in_memory(agent(*GOOD)) as g:
        answer = await g.http.post(
            CHAT,
            json={"model": "A", "messages": USER, "stream": True, "stream_options": {"include_usage": usage}},
            headers={"x-agent-gateway-client": client},
        )
    body = answer.content
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert body.count(b"data: [DONE]\n\n") == 1
    events = chat_events(body)
    assert bool(usage) is (events[-1].get("usage") is not None)


async def test_a_chat_stream_that_fails_ends_with_its_error():
    async with gateway_in_memory(agent(*BAD)) as g:
        answer = await g.http.post(CHAT, json={"model": "A", "messages": USER, "stream": True})
    assert answer.status_code == 200
    assert b"[DONE]" not in answer.content
    *before, last = chat_events(answer.content)
    assert set(last) == {"error"}
    assert not any("error" in event for event in before)


async def test_a_responses_stream():
    async with gateway_in_memory(agent(*GOOD)) as g:
        answer = await g.http.post(RESPONSES, json={"model": "A", "input": "hi", "stream": True})
    events = response_events(answer.content)
    assert events[0]["type"] == "response.created"
    assert [event["type"] for event in events].count("response.completed") == 1
    assert events[-1]["type"] == "response.completed"


async def test_a_responses_stream_that_fails_ends_with_its_failure():
    async with gateway_in_memory(agent(*BAD)) as g:
        answer = await g.http.post(RESPONSES, json={"model": "A", "input": "hi", "stream": True})
    events = response_events(answer.content)
    assert events[-1]["type"] == "response.failed"
    assert not any(event["type"] in ("response.completed", "response.incomplete") for event in events)
