"""Child processes that agents start: they do not keep the port in use, and those of a run end with it."""

import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import psutil
import pytest

from tests.acceptance.conftest import STOP_SECONDS, serving
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
            server.process.wait(STOP_SECONDS)
            os.kill(child, 0)  # it still runs
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", server.port))
                listener.listen()
        finally:
            os.kill(child, signal.SIGKILL)


TOOLS = """
import asyncio, os, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

from agents import Agent, function_tool
from gateway_core.testing import call, script

def wait(name, ignore=False, first=""):
    code = f"import os, pathlib, signal, time; {first}"
    if ignore:
        code += "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    return [sys.executable, "-c", code + f"pathlib.Path('{name}').write_text(str(os.getpid())); time.sleep(60)"]

def forked(name, twice=False):
    if os.fork() == 0:
        if twice:
            os.setsid()
            if os.fork():
                os._exit(0)
        with open(name, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
        os._exit(0)

def command(name):
    return " ".join("'" + each.replace("'", "'\\"'\\"'") + "'" for each in wait(name))

POOL = ThreadPoolExecutor(1)

STARTS = {
    "popen": lambda name: subprocess.Popen(wait(name)),
    "session": lambda name: subprocess.Popen(wait(name), start_new_session=True),
    "spawn": lambda name: os.posix_spawn(sys.executable, wait(name), os.environ),
    "shell": lambda name: os.system(command(name) + " &"),
    "daemon": lambda name: subprocess.Popen(
        wait(name, first="os.setsid(); os.fork() and os._exit(0); "), env={"PATH": os.environ["PATH"]}
    ),
    "stubborn": lambda name: subprocess.Popen(wait(name, ignore=True)),
    "pool": lambda name: POOL.submit(subprocess.Popen, wait(name)).result(),
    "pool_of_loop": lambda name: asyncio.get_running_loop().run_in_executor(POOL, subprocess.Popen, wait(name)),
    "fork": forked,
    "fork_twice": lambda name: forked(name, twice=True),
}

async def written(name):
    while not os.path.exists(name) or not open(name).read():
        await asyncio.sleep(0.02)

@function_tool
async def begin(how: str) -> str:
    "Start a process."
    if how == "loop":
        await asyncio.create_subprocess_exec(*wait(how))
    else:
        STARTS[how](how)
    await written(how)
    return how

@function_tool
def begin_in_thread(how: str) -> str:
    "Start a process."
    STARTS["popen"](how)
    asyncio.run(written(how))
    return how

@function_tool
async def finish() -> str:
    "Start a process and wait for it."
    await asyncio.sleep(0.1)
    return str(subprocess.run(["true"]).returncode)

@function_tool
async def hold() -> str:
    "Run until a file exists."
    subprocess.Popen(wait("held"))
    await written("held")
    await written("release")
    return "ok"

imported = subprocess.Popen(wait("imported"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def agent_of(*calls):
    return Agent(name="x", tools=[begin, begin_in_thread, finish, hold], model=script([*calls], "done"))
"""


def tools_of(tmp_path, **agents: str) -> None:
    for name, calls in agents.items():
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        source = TOOLS if name == "Starter" else TOOLS.replace("imported = ", "# ")
        (folder / "agent.py").write_text(f"{source}\nagent = agent_of({calls})\n")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_in(path) -> int:
    wait_until(lambda: path.exists() and path.read_text(), f"{path.name} has started")
    return int(path.read_text())


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ask(server, model: str) -> None:
    assert (
        server.client().chat.completions.create(model=model, messages=user("go")).choices[0].message.content == "done"
    )


SHAPES = ("popen", "session", "spawn", "shell", "daemon", "stubborn", "fork", "fork_twice", "loop")


def test_processes_that_a_run_leaves_end_with_it_and_their_tools_are_named(tmp_path):
    """Whichever way they were started, and while two tools run at the same time."""
    calls = ", ".join(f'call("begin", how="{each}")' for each in SHAPES)
    tools_of(tmp_path, Starter=f'{calls}, call("begin_in_thread", how="thread"), call("finish")', Other='call("hold")')
    with serving(tmp_path, "--offline") as server, ThreadPoolExecutor() as pool:
        imported = pid_in(tmp_path / "imported")
        other = pool.submit(ask, server, "Other")
        held = pid_in(tmp_path / "held")
        ask(server, "Starter")
        pids = {each: pid_in(tmp_path / each) for each in (*SHAPES, "thread")}
        wait_until(lambda: not any(map(is_running, pids.values())), "the processes have ended")
        [line] = [line for line in server.text.splitlines() if "child processes are still running" in line]
        for each, pid in pids.items():
            tool = "begin_in_thread" if each == "thread" else "begin"
            assert f"({pid}, started by the tool {tool})" in line
        assert "agent: Starter" in line
        assert "finish" not in line
        assert is_running(imported)
        assert is_running(held)
        (tmp_path / "release").write_text("now")
        other.result()
        wait_until(lambda: not is_running(held), "the other run's process has ended")
        metrics = httpx2.get(f"{server.url}/metrics", timeout=20).text
        assert re.search(r'processes_leftover_total{.*agent="Starter",.*tool="begin"} 9.0', metrics), metrics
        assert httpx2.get(f"{server.url}/healthz", timeout=20).status_code == 200
        assert is_running(imported)
        os.kill(imported, signal.SIGKILL)


def test_processes_that_pools_of_threads_start_belong_to_the_run_that_submitted_the_work(tmp_path):
    shapes = ("pool", "pool_of_loop")
    tools_of(tmp_path, Main=", ".join(f'call("begin", how="{each}")' for each in shapes))
    with serving(tmp_path, "--offline") as server:
        ask(server, "Main")
        pids = {each: pid_in(tmp_path / each) for each in shapes}
        wait_until(lambda: not any(map(is_running, pids.values())), "the processes have ended")
        for pid in pids.values():
            assert f"({pid}, started by the tool begin)" in server.text


def test_processes_that_a_run_leaves_can_be_kept(tmp_path):
    tools_of(tmp_path, Main='call("begin", how="popen")')
    (tmp_path / "gateway.toml").write_text('[agents.Main]\nleftover_processes = "keep"\n')
    with serving(tmp_path, "--offline") as server:
        ask(server, "Main")
        left = pid_in(tmp_path / "popen")
        try:
            wait_until(lambda: "they are kept" in server.text, "it is reported")
            assert is_running(left)
            metrics = httpx2.get(f"{server.url}/metrics", timeout=20).text
            assert re.search(r"^agent_gateway_processes_left(\{.*\})? 1(\.0)?$", metrics, re.MULTILINE), metrics
        finally:
            os.kill(left, signal.SIGKILL)


def test_processes_end_with_a_cancelled_run_and_at_shutdown(tmp_path):
    tools_of(tmp_path, Main='call("hold")', Other='call("begin", how="stubborn")')
    with serving(tmp_path, "--offline") as server:
        with pytest.raises(openai.APITimeoutError):
            server.client().with_options(timeout=2).chat.completions.create(model="Main", messages=user("go"))
        held = pid_in(tmp_path / "held")
        wait_until(lambda: not is_running(held), "the process has ended")
        ask(server, "Other")
        stubborn = pid_in(tmp_path / "stubborn")
    assert not is_running(stubborn)
