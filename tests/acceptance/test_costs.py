"""No request body of legal size blocks the event loop or retains memory."""

# ruff: noqa: E501 - a body is one line

import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import Server, serving
from tests.support.upstream import upstream_process

MAX_CPU_SECONDS = 1.5
"""Of one request; below 0.5 s on an idle machine, and 8 s before there were limits."""
MAX_LAG_SECONDS = 5.0
"""Of another request meanwhile; generous, because the machine may be busy; below 0.25 s on an idle one."""
MAX_MEMORY_MIB = 50
SIZE = 9_500_000


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("costs")
    (folder / "agents").mkdir()
    (folder / "agents" / "ok.py").write_text("from agents import Agent\nagent = Agent(name='ok', model='fake/ok')\n")
    # The upstream runs in a separate process: in this one, it would delay the probes.
    with upstream_process() as base_url:
        (folder / "gateway.toml").write_text(f'[plugins.upstreams.fake]\nbase_url = "{base_url}"\napi_key = "any"\n')
        with serving(folder) as running:
            yield running


def filled(start: str, unit: str, end: str, *, separator: str = ",", size: int = SIZE) -> bytes:
    """As many units as fit into the size."""
    count = size // len((unit + separator).encode())
    return (start + separator.join([unit] * count) + end).encode()


CHAT = '{"model":"ok","messages":['
INPUT = '{"model":"ok","input":['
USER = '{"role":"user","content":"hi"}'
ANSWERED = '{"role":"user","content":"hi"},{"role":"assistant","content":'
APPROVAL = "appr_" + "a" * 22
PARTS = '{"role":"user","content":[' + ",".join(['{"type":"text","text":""}'] * 180) + "]}"
CHAT_BODIES = {
    "one text": filled(CHAT + '{"role":"user","content":"', "say x", '"}]}', separator=" "),
    "JSON in a text": filled(CHAT + '{"role":"user","content":"', '{\\"a\\": [1, 2]}', '"}]}'),
    "empty objects": filled(CHAT, "{}", "]}"),
    "empty arrays": filled(CHAT, "[]", "]}"),
    "empty strings": filled(CHAT, '""', "]}"),
    "numbers": filled('{"model":"ok","metadata":{"a":[', "1", "]},\"messages\":[" + USER + "]}"),
    "keys": b'{"model":"ok","metadata":{' + b",".join(b'"%d":1' % i for i in range(900_000)) + b'},"messages":[' + USER.encode() + b"]}",
    "the same key": filled('{"model":"ok",', '"a":1', ',"messages":[' + USER + "]}"),
    "parts": filled(CHAT, PARTS, "]}"),
    "as many parts as allowed": filled(CHAT, '{"role":"user","content":[{"type":"text","text":"hi"},{"type":"text","text":"hi"}]}', "]}", size=2048 * 83),
    "messages": filled(CHAT, USER, "]}"),
    "as many messages as allowed": filled(CHAT, USER, "]}", size=2048 * 31),
    "large messages": filled(CHAT, '{"role":"user","content":"' + "x" * 4600 + '"}', "]}"),
    "tool calls": filled(CHAT + ANSWERED + 'null,"tool_calls":[', '{"id":"a","function":{"name":"a"}}', "]}]}"),
    "a model name": filled('{"messages":[' + USER + '],"model":"', "x", '"}', separator=""),
    "a role": filled('{"model":"ok","messages":[{"content":"","role":"', "x", '"}]}', separator=""),
    "a call id": filled(CHAT + '{"role":"tool","content":"","tool_call_id":"', "x", '"}]}', separator=""),
    "an image": filled(CHAT + '{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,', "AAAA", '"}}]}]}', separator=""),
    "a scheme": filled(CHAT + '{"role":"user","content":[{"type":"image_url","image_url":{"url":"', "AAAA", '"}}]}]}', separator=""),
    "escapes": filled(CHAT + '{"role":"user","content":"', "\\u00e9", '"}]}', separator=""),
    "surrogates": filled(CHAT + '{"role":"user","content":"', "\\ud83d\\ude00", '"}]}', separator=""),
    "a number of many digits": filled('{"model":"ok","seed":', "9", ',"messages":[' + USER + "]}", separator=""),
    "nesting": b'{"model":"ok","messages":' + b"[" * 4_000_000 + b"]" * 4_000_000 + b"}",
    "client tools": filled('{"model":"ok","messages":[' + USER + '],"tools":[', '{"type":"function","function":{"name":"a"}}', "]}"),
    "a large client tool": filled('{"model":"ok","messages":[' + USER + '],"tools":[{"type":"function","function":{"name":"', "a", '"}}]}', separator=""),
    "stop words": filled('{"model":"ok","messages":[' + USER + '],"stop":[', '"a"', "]}"),
    "unclosed blocks": filled(CHAT + ANSWERED + '"', '<details type=\\"reasoning\\"', '"},' + USER + "]}", separator=" "),
    "blocks without an end": filled(CHAT + ANSWERED + '"', '<details type=\\"reasoning\\">', '"},' + USER + "]}", separator=" "),
    "a long approval": filled(CHAT + ANSWERED + f'"{APPROVAL}"}},{{"role":"user","content":"yes', " ", 'x"}]}', separator=""),
    "a long rejection": filled(CHAT + ANSWERED + f'"{APPROVAL}"}},{{"role":"user","content":"no', " ", 'x"}]}', separator=""),
    "an unclosed chat history": filled(CHAT + '{"role":"user","content":"### Task:\\n', "<chat_history>", '"}]}', separator=""),
    "headings": filled(CHAT + '{"role":"user","content":"### Task:\\n<chat_history></chat_history>{\\"title\\":', "##", '"}]}', separator="\\n"),
}  # fmt: skip
RESPONSES_BODIES = {
    "one text": filled('{"model":"ok","store":false,"input":"', "say x", '"}', separator=" "),
    "a stored text": filled('{"model":"ok","input":"', "say x", '"}', separator=" "),
    "items": filled(INPUT, USER, "]}"),
    "as many items as allowed": filled(INPUT, USER, "]}", size=2048 * 31),
    "parts": filled(INPUT + '{"role":"user","content":[', '{"type":"input_text","text":""}', "]}]}"),
    "outputs": filled(INPUT + '{"type":"function_call","call_id":"a","name":"a"},{"type":"function_call_output","call_id":"a","output":[', '{"type":"input_text","text":""}', "]}]}"),
    "reasoning": filled(INPUT, '{"type":"reasoning","summary":[]}', "]}"),
    "metadata": b'{"model":"ok","input":"hi","metadata":{' + b",".join(b'"%d":""' % i for i in range(700_000)) + b"}}",
    "a metadata name": filled('{"model":"ok","input":"hi","metadata":{"', "x", '":1}}', separator=""),
    "a previous response": filled('{"model":"ok","input":"hi","previous_response_id":"', "x", '"}', separator=""),
    "a reference": filled('{"model":"ok","input":[{"type":"item_reference","id":"', "x", '"}]}', separator=""),
    "references": filled(INPUT, '{"type":"item_reference","id":"msg_1"}', "]}"),
    "instructions": filled('{"model":"ok","input":"hi","instructions":"', "x", '"}', separator=""),
    "a model name": filled('{"input":"hi","model":"', "x", '"}', separator=""),
}  # fmt: skip
OTHER = {
    "/v1/responses/x/cancel": b"{}",
    "/admin/security/overrides": filled('{"reason":"', "x", '"}', separator=""),
    "/admin/security/preview": filled('{"a":[', "{}", "]}"),
}
CASES = [
    *(pytest.param("/v1/chat/completions", body, id=f"chat: {name}") for name, body in CHAT_BODIES.items()),
    *(pytest.param("/v1/responses", body, id=f"responses: {name}") for name, body in RESPONSES_BODIES.items()),
    *(pytest.param(path, body, id=path) for path, body in OTHER.items()),
]


def cpu_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def probing(server: Server) -> Iterator[list[float]]:
    """Requests `/healthz` in another thread, and records the seconds that each takes."""
    taken: list[float] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            urllib.request.urlopen(f"{server.url}/healthz", timeout=60).read()
            taken.append(time.perf_counter() - began)
            stop.wait(0.02)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield taken
    finally:
        stop.set()
        thread.join()


def post(server: Server, path: str, body: bytes) -> httpx2.Response:
    return httpx2.post(f"{server.url}{path}", content=body, headers={"content-type": "application/json"}, timeout=60)


@pytest.mark.parametrize(("path", "body"), CASES)
def test_no_body_blocks_other_requests(server, path, body):
    assert len(body) <= 10 * 1024 * 1024, "of legal size"
    before = cpu_seconds(server)
    with probing(server) as lags:
        response = post(server, path, body)
    cpu = cpu_seconds(server) - before
    assert response.status_code < 500, response.text[:500]
    assert len(response.text) < 5000 or response.status_code == 200, "an error does not repeat the body"
    assert cpu < MAX_CPU_SECONDS
    assert max(lags) < MAX_LAG_SECONDS


def test_large_bodies_retain_no_memory(server):
    bodies = [("/v1/chat/completions", body) for body in CHAT_BODIES.values()]
    bodies += [("/v1/responses", body) for name, body in RESPONSES_BODIES.items() if name != "a stored text"]
    for path in {path for path, _ in bodies}:
        post(server, path, b'{"model":"ok","input":"hi","messages":[{"role":"user","content":"hi"}]}')
    before = memory_mib(server)
    for path, body in bodies:
        post(server, path, body)
    for _ in range(100):
        post(server, "/v1/chat/completions", (CHAT + USER + "]}").encode())
    assert memory_mib(server) - before < MAX_MEMORY_MIB
