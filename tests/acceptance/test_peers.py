"""Slow, excessive or malformed requests are rejected or disconnected without affecting other clients."""

import json
import resource
import socket
import subprocess

import pytest

from tests.acceptance.conftest import COMMAND, serving
from tests.acceptance.test_chat import DROP_INS, text_of, user
from tests.acceptance.test_disconnect import connect, post
from tests.support.upstream import FakeUpstream


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def server(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "gateway.toml").write_text(
        f"""
        [server]
        send_timeout = "1s"
        keep_alive = "1s"
        [http]
        body_timeout = "1s"
        [runs]
        max_runs = 3
        [plugins.upstreams.fake]
        base_url = "{upstream.base_url}"
        default_model = "m"
        max_retries = 0
        [plugins.entry_point_discovery]
        enabled = false
        """
    )
    with serving(folder, "--agents", str(DROP_INS)) as running:
        yield running


def answer_to(server, data: bytes, *, timeout: float = 10) -> bytes:
    """Returns the data received until the server closes the connection or a response is complete."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as client:
        client.sendall(data)
        seen = b""
        while chunk := client.recv(65536):
            seen += chunk
            if b"}}" in seen:
                break
    return seen


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"x: y\r\n" * 150 + b"content-length: 0\r\n\r\n", b"431"),
        (HEAD + b"x: " + b"y" * 17_000 + b"\r\ncontent-length: 0\r\n\r\n", b"431"),
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", b"400"),
        (b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", b"414"),
    ],
    ids=["many headers", "large headers", "two framings", "two lengths", "long path"],
)
def test_excessive_or_ambiguous_headers_are_rejected(server, head, status):
    assert answer_to(server, head).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"])
def test_ambiguous_framing_closes_the_connection(server, body):
    inner = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    length = b"content-length: %d\r\n" % (len(body) + len(inner))
    with connect(server) as client:
        client.sendall(HEAD + length + b"transfer-encoding: chunked\r\n\r\n" + body + inner)
        seen = b""
        while received := client.recv(65536):  # until the connection is closed
            seen += received
    assert seen.startswith(b"HTTP/1.1 400")
    assert seen.count(b"HTTP/1.1 ") == 1, "the bytes after the request are not a request"


def test_a_missing_body_times_out(server):
    seen = answer_to(server, HEAD + b"content-length: 100\r\n\r\n{")
    assert seen.startswith(b"HTTP/1.1 408")


def test_missing_headers_time_out(server):
    with connect(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: loc")
        assert client.recv(100) == b"", "the connection is closed"


def test_a_client_that_does_not_read_is_disconnected_and_its_run_ends(server, upstream):
    upstream.reset()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(10)
    client.connect(("127.0.0.1", server.port))
    with client:
        client.sendall(post("endless", stream=True))
        [record] = upstream.wait_for_records(1)
        assert record.closed_early.wait(30), "the run of a client that takes nothing goes on"


def test_runs_beyond_the_limit_are_rejected(server, upstream):
    upstream.reset()
    waiting = [connect(server) for _ in range(3)]
    try:
        for client in waiting:
            client.sendall(post("hang", stream=True))
        upstream.wait_for_records(3)
        seen = answer_to(server, post("say: no", stream=True))
        assert seen.startswith(b"HTTP/1.1 503")
        assert b"\r\nretry-after: 1\r\n" in seen
        assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_runs"
    finally:
        for client in waiting:
            client.close()
    for record in upstream.records:
        assert record.closed_early.wait(30)
    answer = (
        server.client()
        .with_options(max_retries=5)
        .chat.completions.create(model="Plain", messages=user("say: room again"), stream=True)
    )
    assert text_of(answer) == "room again"


def test_a_low_file_limit_is_rejected_at_startup(tmp_path):
    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    ran = subprocess.run(
        [str(COMMAND), "serve", "--port", "0", "--offline"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=few,
    )
    assert ran.returncode == 78
    assert "(256) is too low" in ran.stderr
    assert "raise it to at least 4096" in ran.stderr
