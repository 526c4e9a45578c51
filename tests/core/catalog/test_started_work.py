"""Threads, servers and child processes of a module that is not served any more are named."""

import asyncio
import gc
import os
import signal
import sys
import threading

import pytest

from gateway_core.testing import gateway_in_memory

GOOD = "from agents import Agent\nagent = Agent(name='x')\n"
SERVER = (
    "import http.server, threading\nHandler = http.server.BaseHTTPRequestHandler\n"
    "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
    "import sys; sys.modules['servers_of_test'] = server\n"
    "threading.Thread(target=server.serve_forever, name='web').start()\n"
)
PROCESS = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, name='waits').start()\n"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "A.py").write_text(GOOD)
    yield tmp_path / "A.py"
    if server := sys.modules.pop("servers_of_test", None):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "words"),
    [(SERVER, "the thread 'web'"), (PROCESS, "(python"), (THREAD, "the thread 'waits'")],
    ids=["server", "process", "thread"],
)
@pytest.mark.filterwarnings("ignore:subprocess")
async def test_work_of_a_refused_module_is_named(file, code, words):
    file.with_name("B.py").write_text(f"{code}nothing\n")
    async with gateway_in_memory(folder=file.parent) as g:
        hint = g.gateway.catalog.broken["B"].error.hint
        assert words in hint
        assert hint.endswith("; restart the gateway to stop it")
        if code is PROCESS:
            os.kill(int(hint.partition("the process ")[2].split()[0]), signal.SIGKILL)


async def test_work_of_a_replaced_module_is_named(file, caplog):
    file.write_text(THREAD + GOOD)
    async with gateway_in_memory(folder=file.parent) as g:
        assert g.gateway.catalog.agents["A"].warnings == ()
        file.write_text(GOOD)
        await g.gateway.reload()
        gc.collect()
        while "still runs: loading it started the thread 'waits'" not in caplog.text:
            await asyncio.sleep(0.01)  # bounded by the test's own time limit


async def test_threads_of_the_gateway_are_not_named(file):
    file.with_name("B.py").write_text("import time\ntime.sleep(0.2)\nnothing\n")
    stop = threading.Event()

    async def busy():
        while not stop.is_set():
            await asyncio.to_thread(lambda: None)
            threading.Thread(target=lambda: None, name="tool").start()

    task = asyncio.create_task(busy())
    async with gateway_in_memory(folder=file.parent) as g:
        assert g.gateway.catalog.broken["B"].error.hint is None
    stop.set()
    await task
