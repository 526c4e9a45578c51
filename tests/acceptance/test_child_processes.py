"""Child processes that agents start do not keep the gateway's port in use after the gateway has been killed."""

import os
import re
import signal
import socket
import time

import httpx2
import pytest

from tests.acceptance.conftest import serving
from tests.acceptance.test_chat import user

AGENT = """
import os, signal, subprocess, sys

WAIT = [sys.executable, "-c", "import time; time.sleep(60)"]

def forked():
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return child

STARTS = {{
    "popen": lambda: subprocess.Popen(WAIT, close_fds=False).pid,
    "spawn": lambda: os.posix_spawn(WAIT[0], WAIT, os.environ),
    "fork": forked,
}}

if {at_import}:
    children = [STARTS[{name!r}]()]

async def run_workflow(text: str):
    return str(children[0] if {at_import} else STARTS[{name!r}]())
"""


@pytest.mark.parametrize("at_import", [True, False], ids=["import", "run"])
@pytest.mark.parametrize("name", ["popen", "spawn", "fork"])
def test_the_port_is_free_after_a_kill(tmp_path, name, at_import):
    agent = tmp_path / "agents" / "Parent" / "agent.py"
    agent.parent.mkdir(parents=True)
    agent.write_text(AGENT.format(name=name, at_import=at_import))
    with serving(tmp_path, "--offline") as server:
        answer = server.client().chat.completions.create(model="Parent", messages=user("go"))
        child = int(answer.choices[0].message.content)
        try:
            server.process.kill()
            server.process.wait(10)
            os.kill(child, 0)  # it still runs
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", server.port))
                listener.listen()
        finally:
            os.kill(child, signal.SIGKILL)


def test_processes_that_a_run_leaves_are_counted_and_logged_once(tmp_path):
    agent = tmp_path / "agents" / "Parent" / "agent.py"
    agent.parent.mkdir(parents=True)
    agent.write_text(AGENT.format(name="popen", at_import=False))
    with serving(tmp_path, "--offline") as server:
        children: list[int] = []
        try:
            for _ in range(2):
                time.sleep(1.1)  # the processes are compared at most once a second
                answer = server.client().chat.completions.create(model="Parent", messages=user("go"))
                children.append(int(answer.choices[0].message.content))
            metrics = httpx2.get(f"{server.url}/metrics", timeout=20).text
            assert re.search(r"^agent_gateway_processes_left(\{.*\})? 2(\.0)?$", metrics, re.MULTILINE), metrics
            lines = [line for line in server.text.splitlines() if "child processes are still running" in line]
            assert [f"({child}) [agents: Parent]" in line for child, line in zip(children, lines, strict=True)]
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
