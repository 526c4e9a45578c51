"""A response sent before the request was read does not leak sockets."""

import os
import socket
import time

import pytest

from tests.acceptance.test_chat import server

__all__ = ["server"]

REQUESTS = 200
CHUNK = b"400\r\n" + b"x" * 1024 + b"\r\n"


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /nope HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNK * 20 + b"0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 2_000_000,
    ],
    ids=["chunked", "too large"],
)
def test_early_responses_leak_no_sockets(server, request_bytes):
    before = open_files(server.process.pid)
    for _ in range(REQUESTS):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(request_bytes)
            assert client.recv(12) in (b"HTTP/1.1 404", b"HTTP/1.1 413")
    deadline = time.monotonic() + 10
    while open_files(server.process.pid) > before + 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files(server.process.pid) <= before + 5
