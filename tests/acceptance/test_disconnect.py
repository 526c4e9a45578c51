"""A client disconnect cancels the run and closes the connection to the upstream."""

import json
import re
import socket
import threading
import time

import pytest

from tests.acceptance.test_chat import server, user
from tests.support.http2 import Http2

__all__ = ["server"]


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def post(text: str, *, model: str = "Plain", stream: bool) -> bytes:
    return post_chat(user(text), model=model, stream=stream)


def post_chat(messages: list[dict[str, str]], *, model: str = "Plain", stream: bool) -> bytes:
    body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("text", "stream", "words"),
    [
        # The answer would take five minutes.
        ("slow 0.05 6000", True, 3),
        ("slow 0.05 6000", False, 0),
        ("hang", True, 0),
        ("hang", False, 0),
        ("hang-after 3", True, 3),
    ],
)
def test_a_disconnect_closes_the_upstream_connection(server, records, text, stream, words):
    with connect(server) as client:
        client.sendall(post(text, stream=stream))
        [record] = records(1)
        seen = b""
        while words and b"%d" % words not in seen.partition(b"assistant")[2]:
            seen += client.recv(65536)
    assert record.closed_early.wait(30)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_disconnect_is_detected_despite_a_pipelined_request(server, records, stream, half):
    with connect(server) as client:
        client.sendall(post("hang", stream=stream) + post("hang", stream=stream))
        [record] = records(1)
        if half:
            client.shutdown(socket.SHUT_WR)
            assert record.closed_early.wait(30)
    assert record.closed_early.wait(30)


def test_pipelined_requests_are_answered_in_order(server):
    with connect(server) as client:
        client.sendall(b"".join(post(f"say: answer {n}", stream=False) for n in (1, 2, 3)))
        seen = b""
        while seen.count(b"HTTP/1.1 200") < 3 or not seen.endswith(b"}}}"):
            seen += client.recv(65536)
    assert re.findall(rb'"answer (\d)"', seen) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_http2_reset_cancels_only_its_own_stream(server, records, stream):
    body = {"model": "Plain", "messages": user("hang"), "stream": stream}
    with Http2(server.port) as client:
        left = client.post("/v1/chat/completions", body)
        [record] = records(1)
        stays = client.post("/v1/chat/completions", {**body, "messages": user("slow 0.05 10"), "stream": True})
        records(2)
        client.reset(left)
        assert record.closed_early.wait(30)
        client.read_until(lambda: stays in client.ended)
        assert b"[DONE]" in client.body[stays]


def test_an_early_http2_response_does_not_affect_other_streams(server, records):
    body = {"model": "Plain", "messages": user("slow 0.05 10"), "stream": True}
    with Http2(server.port) as client:
        stays = client.post("/v1/chat/completions", body)
        records(1)
        refused = client.post("/nope", end=False)
        for _ in range(20):
            client.send(refused, b"x" * 2048)
        client.read_until(lambda: refused in client.status)
        client.read_until(lambda: stays in client.ended)
        assert client.status[refused] == 404
        assert b"[DONE]" in client.body[stays]


def test_a_half_closed_connection_counts_as_a_disconnect(server, records):
    with connect(server) as client:
        client.sendall(post("slow 0.05 200", stream=True))
        [record] = records(1)
        client.shutdown(socket.SHUT_WR)
        assert record.closed_early.wait(30)


def test_a_disconnect_closes_the_upstream_of_a_nested_agent(server, records):
    with connect(server) as client:
        client.sendall(post('call as_tool {"input": "slow 0.05 200"}', model="Tools", stream=True))
        inner = records(2)[1]
    assert inner.closed_early.wait(30)


def test_a_disconnect_cancels_a_waiting_tool(server):
    threads_before = threading.active_count()
    with connect(server) as client:
        client.sendall(post('call wait {"seconds": 60}', model="Tools", stream=False))
        time.sleep(0.3)  # the start of a tool is not observable from outside
    answer = server.client().chat.completions.create(model="Plain", messages=user("say: next"))
    assert answer.choices[0].message.content == "next"
    assert threading.active_count() == threads_before


def test_a_blocking_tool_does_not_delay_other_requests(server):
    with connect(server) as client:
        client.sendall(post('call block {"seconds": 10}', model="Tools", stream=True))
        began = time.monotonic()
        answer = server.client().chat.completions.create(model="Plain", messages=user("say: next"))
        assert answer.choices[0].message.content == "next"
        assert time.monotonic() - began < 10
