"""No answer of an upstream or a tool's server that has a legal size blocks the event loop."""

import itertools
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from tests.acceptance.conftest import Server, serving
from tests.acceptance.test_costs import MAX_LAG_SECONDS, probing

SERVER = """
import http.server, json

UNITS = {"objects": b"{}", "arrays": b"[]", "numbers": b"0", "texts": b'""', "parts": b'{"type":"text","text":""}'}

WHOLE = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":%s}}]}'

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        unit, place, status, size = asked["model"].split(".")
        unit = UNITS[unit]
        many = b",".join([unit] * (int(size) * 1000 * 1000 // (len(unit) + 1)))
        if place == "chat":
            body = WHOLE % (b"[%s]" % many)
        elif place == "choices":
            body = b'{"choices":[%s]}' % many
        elif place == "output":
            body = b'{"object":"response","status":"completed","output":[{"type":"message","content":[%s]}]}' % many
        elif place == "items":
            body = b'{"object":"response","status":"completed","output":[%s]}' % many
        elif place == "lines":
            body = b"[\\n%s\\n]" % many.replace(b",", b",\\n]\\n")
        elif place == "data":
            body = b'data: {"choices":[{"index":0,"delta":{"content":"x","y":[%s]}}]}\\n\\n' % many
        elif place == "text":
            text = many.replace(b'"', b'\\\\"')
            body = WHOLE % (b'"%s"' % text)
        self.send_response(int(status))
        self.send_header("content-type", "text/event-stream" if place == "data" else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""

CASES = [
    *(f"{unit}.{place}.200.60" for unit in ("objects", "numbers") for place in ("chat", "choices", "output", "items")),
    *(f"{unit}.chat.200.60" for unit in ("arrays", "texts", "parts")),
    *(
        f"objects.{place}.200.{size}"
        for place, size in itertools.product(("chat", "choices", "output", "items"), (0, 1))
    ),
    "parts.chat.200.5",
    "parts.output.200.5",
    "objects.lines.200.60",
    "objects.data.200.4",
    "objects.data.200.1",
    "objects.text.200.30",
    "objects.chat.400.60",
    "numbers.chat.500.60",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "agents").mkdir()
    upstream = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert upstream.stdout is not None
    port = int(upstream.stdout.readline())
    names = {case: case.replace(".", "_") for case in CASES}
    for case, name in names.items():
        upstream_name = "responses" if ".output." in case or ".items." in case else "chat"
        source = f"from agents import Agent\nagent = Agent(name='x', model='{upstream_name}/{case}')\n"
        (folder / "agents" / f"{name}.py").write_text(source)
    tables = (
        f'[plugins.upstreams.{name}]\nbase_url = "http://127.0.0.1:{port}/v1"\napi = "{api}"\nmax_retries = 0\n'
        for name, api in (("chat", "chat"), ("responses", "responses"))
    )
    (folder / "gateway.toml").write_text("".join(tables))
    try:
        with serving(folder) as running:
            yield running
    finally:
        upstream.kill()
        upstream.stdout.close()
        upstream.wait()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_of_an_upstream_blocks_other_requests(server, case, stream):
    body = {"model": case.replace(".", "_"), "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with probing(server) as lags:
        answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code in (200, 400, 502), answer.text[:500]
    assert max(lags) < MAX_LAG_SECONDS
