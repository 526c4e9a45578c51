"""Changes that an agent's code makes in the process are restored and named, and do not affect other agents."""

import asyncio
import builtins
import gc
import json
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings

import agents
import openai
import pytest
from agents import run as agents_run

from gateway_core.sdk.process_settings import process_settings
from gateway_core.sdk.process_state import ProcessState
from gateway_core.testing import gateway_in_memory, script

PLAIN = "from agents import Agent\nagent = Agent(name='plain')\n"
CUSTOM_RUNNER = (
    "from agents.run import AgentRunner, set_default_agent_runner\n"
    "class Quiet(AgentRunner):\n"
    "    async def run(self, agent, input, **options):\n"
    "        class Result:\n"
    "            final_output, interruptions, new_items = '', (), ()\n"
    "        return Result()\n"
)

NESTED_LOOPS = """
import asyncio
asyncio.run = print
asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask
asyncio.SelectorEventLoop.run_forever = print
"""

# The code that changes something, the words that name it, and a function that reads it.
CHANGES = {
    "runner": (
        CUSTOM_RUNNER + "set_default_agent_runner(Quiet())",
        "default agent runner (agent.py:7)",
        lambda: agents_run.DEFAULT_AGENT_RUNNER,
    ),
    "runner variable": (
        CUSTOM_RUNNER + "import agents.run\nagents.run.DEFAULT_AGENT_RUNNER = Quiet()",
        "default agent runner (agent.py:8)",
        lambda: agents_run.DEFAULT_AGENT_RUNNER,
    ),
    "runner method": (
        "import agents\nagents.Runner.run = classmethod(lambda *a, **o: None)",
        "agents.Runner.run",
        lambda: vars(agents.Runner)["run"],
    ),
    "harness": (
        "import agents\nagents.set_default_openai_harness('mine')",
        "agent registration (agent.py:2)",
        lambda: sys.modules["agents.models.openai_agent_registration"]._default_agent_registration,
    ),
    "proxy": (
        "import os\nos.environ['HTTPS_PROXY'] = 'http://127.0.0.1:9'",
        "HTTPS_PROXY (agent.py:2)",
        lambda: os.environ.get("HTTPS_PROXY"),
    ),
    "override": ("import os\nos.environ['HOME'] = '/nowhere'", "HOME", lambda: os.environ.get("HOME")),
    "chdir": ("import os\nos.chdir('/')", "working directory (agent.py:2)", os.getcwd),
    "umask": ("import os\nos.umask(0)", "umask (agent.py:2)", lambda: [os.umask(0o77), os.umask(os.umask(0o77))][1]),
    "sys.path": ("import sys\nsys.path.insert(0, '/nowhere')", "sys.path (agent.py:2)", lambda: sys.path[0]),
    "stdout": ("import sys, io\nsys.stdout = io.StringIO()", "sys.stdout (agent.py:2)", lambda: sys.stdout),
    "excepthook": ("import sys\nsys.excepthook = print", "sys.excepthook (agent.py:2)", lambda: sys.excepthook),
    "threading.excepthook": (
        "import threading\nthreading.excepthook = print",
        "threading.excepthook",
        lambda: threading.excepthook,
    ),
    "basicConfig": (
        "import logging\nlogging.basicConfig(force=True, level=5)",
        "root logger's handlers (agent.py:2)",
        lambda: (logging.getLogger().level, [*logging.getLogger().handlers]),
    ),
    "logging.disable": ("import logging\nlogging.disable(50)", "logging.disable", lambda: logging.root.manager.disable),
    "logger class": (
        "import logging\nclass Own(logging.Logger): pass\nlogging.setLoggerClass(Own)",
        "logger class (agent.py:3)",
        logging.getLoggerClass,
    ),
    "dictConfig": (
        "import logging.config\nlogging.config.dictConfig({'version': 1})",
        "loggers are disabled (agent.py:2)",
        lambda: logging.getLogger("gateway_core.gateway").disabled,
    ),
    "warnings": (
        "import warnings\nwarnings.filterwarnings('error', 'of the module')",
        "warnings are errors (agent.py:2)",
        lambda: [entry[2] for entry in warnings.filters if entry[0] == "error"],
    ),
    "recursion": ("import sys\nsys.setrecursionlimit(5000)", "recursion limit (agent.py:2)", sys.getrecursionlimit),
    "socket timeout": (
        "import socket\nsocket.setdefaulttimeout(0.001)",
        "timeout of sockets (agent.py:2)",
        socket.getdefaulttimeout,
    ),
    "locale": (
        "import locale\nlocale.setlocale(locale.LC_ALL, 'C')\nlocale.setlocale(locale.LC_CTYPE, 'POSIX')",
        "",
        lambda: locale.setlocale(locale.LC_ALL),
    ),
    "gc": ("import gc\ngc.disable()", "garbage collection (agent.py:2)", gc.isenabled),
    "policy": (
        "import asyncio\nasyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())",
        "event loop policy (agent.py:2)",
        lambda: asyncio.events._event_loop_policy,
    ),
    "print": ("import builtins\nbuiltins.print = lambda *a, **o: None", "builtins.print", lambda: builtins.print),
    "json": ("import json\njson.dumps = lambda *a, **o: ''", "json.dumps (agent.py:2)", lambda: json.dumps),
    "sleep": ("import time\ntime.sleep = lambda s: None", "time.sleep", lambda: time.sleep),
    "getaddrinfo": (
        "import socket\nsocket.getaddrinfo = lambda *a, **o: []",
        "socket.getaddrinfo",
        lambda: socket.getaddrinfo,
    ),
    "client": (
        "import openai\nopenai.AsyncOpenAI.__init__ = lambda self, **o: None",
        "openai.AsyncOpenAI.__init__",
        lambda: openai.AsyncOpenAI.__init__,
    ),
    "nested loops": (
        NESTED_LOOPS,
        "asyncio.run",
        lambda: (asyncio.Task, asyncio.tasks.Task, asyncio.SelectorEventLoop.run_forever, asyncio.run),
    ),
}


def write(folder, **files):
    for name, text in files.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "agent.py").write_text(text)


async def answer(g, model):
    messages = [{"role": "user", "content": "hi"}]
    return (await g.openai.chat.completions.create(model=model, messages=messages)).choices[0].message.content


@pytest.mark.parametrize("broken", [False, True], ids=["works", "broken"])
@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_restored_and_named(tmp_path, name, broken, caplog):
    code, words, read = CHANGES[name]
    write(tmp_path, A=PLAIN, B=f"{code}\n{'nothing' if broken else PLAIN}")
    async with gateway_in_memory():
        pass  # installs the gateway's runner
    before = read()
    async with gateway_in_memory(folder=tmp_path, model=script("served")) as g:
        assert read() == before
        catalog = g.gateway.catalog
        text = str(catalog.broken["B"].error) if broken else " ".join(catalog.agents["B"].warnings)
        assert words in text
        if words:
            assert words in caplog.text
        assert await answer(g, "A") == "served"


async def test_other_variables_and_appended_folders_stay(tmp_path, monkeypatch):
    monkeypatch.delenv("OF_THE_MODULE", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, B=f"import os, sys\nos.environ['OF_THE_MODULE'] = 'x'\nsys.path.append('/nowhere')\n{PLAIN}")
    async with gateway_in_memory(folder=tmp_path, model=script("served")) as g:
        assert g.gateway.catalog.agents["B"].warnings == ()
        assert os.environ.pop("OF_THE_MODULE") == "x"
        assert sys.path[-1] == "/nowhere"


async def test_a_change_in_setup_is_restored(tmp_path):
    write(tmp_path, B=f"import signal\ndef setup():\n    signal.signal(signal.SIGTERM, print)\n{PLAIN}")
    before = signal.getsignal(signal.SIGTERM)
    async with gateway_in_memory(folder=tmp_path) as g:
        assert signal.getsignal(signal.SIGTERM) is before
        assert "SIGTERM (agent.py:3)" in g.gateway.catalog.agents["B"].warnings[0]


@pytest.mark.parametrize("how", ["set_default_agent_runner(Quiet())", "agents.run.DEFAULT_AGENT_RUNNER = Quiet()"])
async def test_a_workflow_cannot_replace_the_runner(tmp_path, how, caplog):
    workflow = (
        f"{CUSTOM_RUNNER}import agents.run\nfrom agents import Agent, Runner\nagent = Agent(name='w')\n"
        f"async def run_workflow(text: str):\n    {how}\n    return (await Runner.run(agent, text)).final_output\n"
    )
    write(tmp_path, A=PLAIN, B=workflow)
    ours = agents_run.DEFAULT_AGENT_RUNNER
    async with gateway_in_memory(folder=tmp_path, model=script("one", "two", "three")) as g:
        if how.startswith("set"):
            assert await answer(g, "B") == "one"
            assert "B: it set the SDK's default agent runner (agent.py:" in caplog.text
        else:
            with pytest.raises(openai.InternalServerError) as caught:
                await answer(g, "B")
            assert caught.value.code == "runner_replaced"
        assert await answer(g, "A") in ("one", "two")
        assert type(agents_run.DEFAULT_AGENT_RUNNER) is type(ours)


async def test_a_run_that_bypasses_the_gateway_is_an_error(tmp_path, monkeypatch):
    write(tmp_path, A=PLAIN)

    async def quiet(*_, **__):
        class Result:
            final_output, interruptions, new_items = "", (), ()

        return Result()

    async with gateway_in_memory(folder=tmp_path, model=script("served")) as g:
        monkeypatch.setattr(agents.Runner, "run", quiet)
        with pytest.raises(openai.InternalServerError) as caught:
            await answer(g, "A")
        assert caught.value.code == "runner_replaced"


def test_saving_and_restoring_is_fast():
    state = ProcessState(process_settings())
    began = time.process_time()
    for _ in range(20):
        state.save()
        assert state.restore() == []
    assert (time.process_time() - began) / 20 < 0.02  # about 1 ms on an idle machine
