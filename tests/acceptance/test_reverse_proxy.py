"""The real nginx, with the configuration of the documentation, in front of the real command."""

import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest

from gateway_core.config.settings import load_config
from tests.acceptance.conftest import serving

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "reverse-proxy.md").read_text()
NAME = "agents.example"
START_SECONDS = 30.0

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; on Debian: apt-get install nginx-light")


def of_page(language: str) -> str:
    [block] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream):
    """A gateway with the settings of the page."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "agents").mkdir()
    (folder / "agents" / "Plain.py").write_text("from agents import Agent\nagent = Agent(name='Plain')\n")
    (folder / "gateway.toml").write_text(
        f"[plugins.entry_point_discovery]\nenabled = false\n\n[plugins.upstreams.fake]\n"
        f"base_url = '{upstream.base_url}'\ndefault_model = 'm'\n\n{of_page('toml')}"
    )
    with serving(folder) as server:
        yield server


@pytest.fixture
def proxied(tmp_path, gateway):
    """Starts nginx with the `server` block of the page, after a change, and returns its URL under the public name."""
    with contextmanager(_nginx)(tmp_path) as start:
        block = of_page("nginx").replace("127.0.0.1:8000", f"127.0.0.1:{gateway.port}")
        yield lambda change=lambda text: text: start(change(block))


def _nginx(folder):
    processes = []

    def start(block: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy"))
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/pid; worker_processes 1;\n"
            f"error_log stderr; events {{}} http {{ access_log off; {temporary}\n"
            f"{block.replace('listen 80;', f'listen 127.0.0.1:{port};')}\n}}\n"
        )
        with (folder / "errors").open("w") as errors:
            process = subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=errors)
        processes.append(process)
        until = time.monotonic() + START_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            assert process.poll() is None, (folder / "errors").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
            process.wait(START_SECONDS)


def get(port: int, path: str = "/v1/models", host: str | None = None):
    return httpx2.get(f"http://127.0.0.1:{port}{path}", headers={"host": host or f"{NAME}:{port}"}, timeout=20)


def client(port: int) -> openai.OpenAI:
    headers = {"host": f"{NAME}:{port}"}
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="any", default_headers=headers, max_retries=0, timeout=30
    )


def ask(text: str) -> dict:
    return {"model": "Plain", "messages": [{"role": "user", "content": text}]}


def test_a_stream_arrives_part_by_part_and_a_disconnect_cancels_the_run(proxied, records):
    with client(proxied()) as agents, agents.chat.completions.create(**ask("hang-after 3"), stream=True) as stream:
        seen = ""
        for chunk in stream:  # the upstream sends nothing after three words
            seen += chunk.choices[0].delta.content or ""
            if "2" in seen:
                break
        [record] = records(1)
    assert record.closed_early.wait(20)


def test_nginx_must_not_collect_parts_of_a_stream(gateway):
    body = {**ask("say: hi"), "stream": True}
    with httpx2.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.headers["x-accel-buffering"] == "no"


def test_answers_and_large_bodies_pass(proxied):
    with client(proxied()) as agents:
        answer = agents.chat.completions.create(**ask("say: " + "x" * 3_000_000))
    assert len(answer.choices[0].message.content) == 3_000_000


def test_the_gateway_refuses_other_names_and_says_which(proxied):
    port = proxied()
    assert get(port).status_code == 200
    refused = get(port, host="other.example")
    assert refused.status_code == 421
    assert "'other.example'" in refused.json()["error"]["message"]


def test_a_page_of_the_same_origin_may_use_the_admin_pages(proxied):
    port = proxied()
    for origin, status in ((f"http://{NAME}:{port}", 200), ("http://evil.example", 403)):
        headers = {"host": f"{NAME}:{port}", "origin": origin}
        answer = httpx2.post(f"http://127.0.0.1:{port}/admin/reload", json={}, headers=headers, timeout=30)
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("upstream_block", "target", "status"),
    [("", None, 200), ("upstream pool.example {{ server {}; }}\n", "pool.example", 421)],
)
def test_without_the_header_the_name_in_proxy_pass_counts(proxied, gateway, upstream_block, target, status):
    def change(block: str) -> str:
        address = f"127.0.0.1:{gateway.port}"
        block = re.sub(r"^ *proxy_set_header Host .*\n", "", block, flags=re.MULTILINE)
        return upstream_block.format(address) + block.replace(f"http://{address}", f"http://{target or address}")

    answer = get(proxied(change), host="unlisted.example")
    assert answer.status_code == status
    assert status == 200 or f"'{target}'" in answer.json()["error"]["message"]


def test_the_limits_of_the_page_are_those_of_the_gateway():
    config = load_config(environ={})
    [seconds] = re.findall(r"proxy_read_timeout (\d+)s;", PAGE)
    [megabytes] = re.findall(r"client_max_body_size (\d+)m;", PAGE)
    assert int(seconds) == config.runs.timeout + 60
    assert int(megabytes) * 1024 * 1024 == config.http.max_body
    assert config.http.sse_keep_alive < 60
