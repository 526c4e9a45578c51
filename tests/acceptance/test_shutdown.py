"""Graceful shutdown: in-flight responses complete, and then the process exits."""

import signal
import socket
import threading

import httpx2
import openai
import pytest

from tests.acceptance.conftest import STOP_SECONDS, serving
from tests.acceptance.test_chat import DROP_INS, user


@pytest.fixture
def start(upstream, tmp_path):
    def start(drain_timeout: str = "10s", drain_delay: str = "0s"):
        (tmp_path / "gateway.toml").write_text(
            f'[server]\ndrain_timeout = "{drain_timeout}"\ndrain_delay = "{drain_delay}"\n'
            f'[plugins.upstreams.fake]\nbase_url = "{upstream.base_url}"\n'
        )
        return serving(tmp_path, "--agents", str(DROP_INS))

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_active_streams_complete_before_shutdown(start, number):
    with start() as server:
        stream = server.client().chat.completions.create(model="Plain", messages=user("slow 0.05 20"), stream=True)
        words = [next(stream), next(stream)]
        server.process.send_signal(number)
        words += list(stream)
        assert words[-1].choices[0].finish_reason == "stop"
        assert server.process.wait(STOP_SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=2)


def test_a_stream_that_exceeds_the_drain_timeout_gets_an_error(start):
    with start("500ms") as server:
        stream = server.client().chat.completions.create(model="Plain", messages=user("slow 0.05 400"), stream=True)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "shutting_down"
        assert server.process.wait(STOP_SECONDS) == 0


def test_readiness_fails_during_the_drain_delay(start):
    with start(drain_delay="1s") as server:
        assert httpx2.get(f"{server.url}/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        # New connections are accepted during the delay, and get a 503.
        seen = []
        while server.process.poll() is None and len(seen) < 1000:
            try:
                seen.append(httpx2.get(f"{server.url}/readyz", timeout=5).status_code)
            except httpx2.TransportError:
                break
            if seen[-1] == 503:
                rejected = httpx2.post(
                    f"{server.url}/v1/chat/completions", json={"model": "Plain", "messages": user("x")}
                )
                assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "shutting_down")
                break
        assert seen[-1] == 503
        assert server.process.wait(STOP_SECONDS) == 0


def test_new_connections_get_503_while_streams_complete(start):
    with start() as server:
        stream = server.client().chat.completions.create(model="Plain", messages=user("slow 0.05 60"), stream=True)
        next(stream)
        idle = httpx2.Client()
        assert idle.get(f"{server.url}/healthz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        while (ready := httpx2.get(f"{server.url}/readyz", timeout=5)).status_code == 200:
            pass
        chat = {"model": "Plain", "messages": user("x")}
        for client in (httpx2, idle):
            rejected = client.post(f"{server.url}/v1/chat/completions", json=chat, timeout=5)
            assert (rejected.status_code, rejected.json()["error"]["code"]) == (503, "shutting_down")
            assert rejected.headers["connection"] == ready.headers["connection"] == "close"
        words = list(stream)
        assert words[-1].choices[0].finish_reason == "stop"
        assert server.process.wait(STOP_SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=2)


def test_it_exits_although_an_agent_does_not_stop(upstream, tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Stubborn.py").write_text(
        "import asyncio\n"
        "async def stream(messages):\n"
        "    yield 'working'\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
    )
    (tmp_path / "gateway.toml").write_text('[server]\ndrain_timeout = "500ms"\n')
    with serving(tmp_path, "--offline") as server:
        stream = server.client().chat.completions.create(model="Stubborn", messages=user("x"), stream=True)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0
        stream.close()


def test_it_stops_although_a_client_has_an_idle_connection(start):
    with start("1s") as server, socket.create_connection(("127.0.0.1", server.port)):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0


def test_a_second_signal_exits_immediately(start):
    with start("60s") as server:
        stream = server.client().chat.completions.create(model="Plain", messages=user("slow 0.05 400"), stream=True)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        gone = threading.Event()

        def wait_until_refused() -> None:
            while not gone.is_set():
                try:
                    if httpx2.get(f"{server.url}/readyz", timeout=1).status_code == 503:
                        gone.set()
                except httpx2.HTTPError:
                    gone.set()

        threading.Thread(target=wait_until_refused, daemon=True).start()
        assert gone.wait(30)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 1
        stream.close()
