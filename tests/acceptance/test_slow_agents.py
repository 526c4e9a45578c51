"""Agents that load slowly delay neither the start of the server nor the other agents."""

import re
import signal
import time

import httpx2
import openai
import pytest

from tests.acceptance.conftest import SERVES_AT, START_SECONDS, STOP_SECONDS, serving
from tests.acceptance.test_chat import user

GOOD = "from agents import Agent\nagent = Agent(name='good')\n"
# Loads when the test creates the file.
WAITING = (
    "import pathlib, time\nwhile not pathlib.Path({gate!r}).exists():\n    time.sleep(0.05)\n"
    "from agents import Agent\nagent = Agent(name='slow')\n"
)


@pytest.fixture
def folder(tmp_path):
    agents = tmp_path / "agents"
    agents.mkdir()
    for name in ("Slow1", "Slow2"):
        (agents / f"{name}.py").write_text(WAITING.format(gate=str(tmp_path / "gate")))
    (agents / "Zebra.py").write_text(GOOD)
    return tmp_path


def eventually(read, wanted):
    """Read until the wanted value appears."""
    deadline = time.monotonic() + START_SECONDS
    while (seen := read()) != wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def url_of(server):
    eventually(lambda: bool(SERVES_AT.search(server.text)), True)
    return SERVES_AT.search(server.text)[1]


def own_models(url):
    listed = httpx2.get(f"{url}/v1/models", timeout=20).json()["data"]
    return {model["id"] for model in listed} & {"Slow1", "Slow2", "Zebra", "Hang"}


def test_the_server_listens_while_agents_load(folder):
    with serving(folder, "--offline", wait=False) as server:
        url = url_of(server)
        assert httpx2.get(f"{url}/healthz", timeout=20).status_code == 200
        eventually(lambda: own_models(url), {"Zebra"})
        ready = httpx2.get(f"{url}/readyz", timeout=20)
        assert ready.status_code == 503
        assert re.fullmatch(r"not ready\ncatalog: loading \(\d+ of \d+ agents\)\n", ready.text)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=20)
        with client:
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError) as caught:
                    client.chat.completions.create(model="slow1", messages=user("x"), stream=stream)
                assert caught.value.status_code == 503
                assert caught.value.code == "agent_loading"
                assert caught.value.response.headers["retry-after"]
                assert "still loading" in caught.value.message
            assert client.chat.completions.create(model="Zebra", messages=user("x")).choices[0].message.content
            states = {a["id"]: a["state"] for a in httpx2.get(f"{url}/admin/agents", timeout=20).json()["agents"]}
            assert (states["Slow1"], states["Slow2"], states["Zebra"]) == ("loading", "loading", "ok")
            (folder / "gate").touch()
            eventually(lambda: httpx2.get(f"{url}/readyz", timeout=20).status_code, 200)
            assert own_models(url) == {"Slow1", "Slow2", "Zebra"}
            assert client.chat.completions.create(model="slow1", messages=user("x")).choices[0].message.content
        server.wait_until_ready()


def test_an_import_that_hangs_is_named(folder):
    (folder / "gate").touch()
    (folder / "agents" / "Hang.py").write_text("import threading\nthreading.Event().wait()\n")
    (folder / "gateway.toml").write_text('[catalog]\nload_timeout = "2s"\n')
    with serving(folder, "--offline") as server:
        assert "Hang.py:2: importing the module timed out after 2 s" in server.text
        assert own_models(server.url) == {"Slow1", "Slow2", "Zebra"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_while_agents_load(folder, number):
    with serving(folder, "--offline", wait=False) as server:
        url_of(server)
        server.process.send_signal(number)
        assert server.process.wait(STOP_SECONDS) == 0
        assert "Traceback" not in server.text


def test_threads_of_agents_do_not_keep_the_process_alive(folder):
    (folder / "gate").touch()
    (folder / "agents" / "Threads.py").write_text(
        "import threading\n"
        f"threading.Thread(target=threading.Event().wait, name='forever', daemon=False).start()\n{GOOD}"
    )
    with serving(folder, "--offline") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_SECONDS) == 0
        eventually(lambda: "still running: forever" in server.text, True)
