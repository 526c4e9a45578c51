"""Reports of event-loop blocking: the agent, the tool, the file and the line, but no values."""

import asyncio
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from agents import Agent, function_tool
from gateway_plugins.loop_monitor import stall_detector
from gateway_plugins.loop_monitor.attribution import responsible
from gateway_plugins.loop_monitor.stall_detector import StallDetector

from gateway_core import AgentEntry, Catalog, ConfigError, ModelCall, Principal, RunContext, hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import ServedAgent

FAST = {"plugins": {"loop_monitor": {"threshold": 0.05}}}


async def ask(g, request_id: str = "r1", model: str = "X") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "canary-of-a-prompt"}]}
    assert (await g.http.post("/v1/chat/completions", json=body, headers={"x-request-id": request_id})).is_success


async def blocks(g) -> dict:
    """Return the measurements after the loop was blocked and resumed."""
    while not (found := {m.name: m.value for m in g.gateway.measurements()})["agent_gateway.event_loop.blocks"]:
        await asyncio.sleep(0.005)
    return found


def line_of(text: str, function) -> int:
    """Return the line of this file in which the function contains the text."""
    code = function.__code__
    lines = Path(__file__).read_text().splitlines()
    return next(n for n in range(code.co_firstlineno, len(lines) + 1) if text in lines[n - 1])


async def test_a_blocking_tool_is_reported_with_its_agent_and_line(caplog):
    @function_tool
    async def stall(what: str) -> str:
        """Stall."""
        time.sleep(0.3)  # the blocking line
        return what

    agent = Agent(name="x", tools=[stall], model=script(call("stall", what="canary-of-an-argument"), "done"))
    async with gateway_in_memory({"X": agent}, config=FAST) as g:
        await ask(g)
        found = await blocks(g)
        [error] = (await g.http.get("/admin/agents/errors/r1")).json()["errors"]
    assert error["code"] == "event_loop_blocked"
    assert error["message"].endswith("by tool stall of agent X")
    line = line_of("# the blocking line", test_a_blocking_tool_is_reported_with_its_agent_and_line)
    assert error["source"] == f"{__file__}:{line}"
    assert (error["agent_id"], error["request_ids"]) == ("X", ["r1"])
    assert found["agent_gateway.event_loop.blocks"] == 1
    assert 0.2 < found["agent_gateway.event_loop.blocked"] <= found["agent_gateway.event_loop.lag"] < 5
    warnings = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert len(warnings) == 1
    assert f"{__file__}:{line}: event loop was blocked" in warnings[0]
    assert "\n" not in warnings[0]
    assert "canary" not in caplog.text


async def test_the_stack_is_logged_at_debug(caplog):
    @function_tool
    async def stall() -> str:
        """Stall."""
        time.sleep(0.3)  # the line on top of the stack
        return ""

    caplog.set_level(logging.DEBUG, "gateway_plugins.loop_monitor")
    agent = Agent(name="x", tools=[stall], model=script(call("stall"), "done"))
    async with gateway_in_memory({"X": agent}, config=FAST) as g:
        await ask(g)
        await blocks(g)
    line = line_of("# the line on top of the stack", test_the_stack_is_logged_at_debug)
    assert f"stack, innermost frame first:\n  {__file__}:{line} stall\n" in caplog.text


class Blocking:
    """A plugin of the operator, which blocks in the task of a run."""

    def __init__(self, *_: object) -> None:
        pass

    @hookimpl
    def on_model_end(self, call: ModelCall) -> None:
        time.sleep(0.3)


async def test_a_plugin_that_blocks_during_a_run_is_not_reported_as_its_agent(caplog):
    caplog.set_level(logging.INFO, "gateway_plugins.loop_monitor")
    agent = Agent(name="x", model=script("done"))
    async with gateway_in_memory({"X": agent}, config=FAST, plugins={"blocking": Blocking}) as g:
        await ask(g)
        await blocks(g)
        assert (await g.http.get("/admin/agents/errors")).json()["errors"] == []
    [line] = [record for record in caplog.records if "blocked" in record.getMessage()]
    assert line.levelno == logging.INFO
    assert f"by on_model_end at {__file__}:" in line.getMessage()


def stack_of(*modules: tuple[str, str]) -> list[FrameType]:
    """Return the frames, innermost first, of functions of these modules (name, file) that call each other."""
    frames: list[FrameType] = []

    def capture() -> None:
        frames.extend(each for each, _ in traceback.walk_stack(sys._getframe(1)))

    inner: Callable[[], None] = capture
    for name, file in modules:
        code = compile("def function():\n    inner()\n", file, "exec")
        names = {"__name__": name, "inner": inner}
        exec(code, names)
        inner = names["function"]
    inner()
    return frames[: len(modules)]


SITE = "/usr/lib/python3/site-packages"
RUN = RunContext("r1", Principal("p"), "A")
CATALOG = Catalog(
    {
        each.id: ServedAgent(each, None, each.id)
        for each in (
            AgentEntry("A", "/srv/agents/A/agent.py", "", lambda: None, folder=Path("/srv/agents/A")),
            AgentEntry("B", "/srv/agents/B.py", "", lambda: None),
            AgentEntry("P", "pack 1.0 (pack.one:agent)", "", lambda: None, module="pack.one"),
            AgentEntry("Q", "pack 1.0 (pack.two:agent)", "", lambda: None, module="pack.two"),
        )
    }
)
AGENT = ("private.agent", "/srv/agents/A/agent.py")
HELPER = ("private.helpers", "/srv/agents/A/helpers.py")
SHARED = ("shared", "/srv/agents/shared.py")
LIBRARY = ("requests.api", f"{SITE}/requests/api.py")
STANDARD = ("json.decoder", json.decoder.__file__)
SDK = ("agents.run", f"{SITE}/agents/run.py")
OPENAI = ("openai._models", f"{SITE}/openai/_models.py")
ENGINE = ("gateway_core.runs.engine", "/srv/gateway/gateway_core/runs/engine.py")
HOOKS = ("gateway_core.hooks.dispatch", "/srv/gateway/gateway_core/hooks/dispatch.py")
PLUGIN = ("gateway_plugins.sessions.store", "/srv/gateway/plugins/gateway_plugins/sessions/store.py")


@pytest.mark.parametrize(
    ("frames", "agent_id", "index"),
    [
        ([AGENT, SDK, ENGINE], "A", 0),
        ([HELPER, AGENT, SDK], "A", 0),
        ([STANDARD, LIBRARY, AGENT, SDK], "A", 2),
        ([STANDARD, SHARED, AGENT, SDK], "A", 2),
        ([("private.b", "/srv/agents/B.py"), SDK, ENGINE], "B", 0),
        ([STANDARD, ("pack.two", f"{SITE}/pack/two.py"), SDK], "Q", 1),
        ([("pack.common", f"{SITE}/pack/common.py"), SDK], "P", 0),
        ([("embedding", "/srv/program.py"), SDK, ENGINE], "A", 0),
        ([("embedding", "/srv/program.py"), ENGINE], "A", 0),
        # An agent's code that waits for the SDK or the gateway does not block.
        ([SDK, AGENT, ENGINE], None, 0),
        ([OPENAI, SDK, AGENT, ENGINE], None, 1),
        ([STANDARD, PLUGIN, SDK, AGENT, ENGINE], None, 1),
        ([STANDARD, ENGINE], None, 1),
        ([("operator", "/srv/plugin.py"), HOOKS, ENGINE], None, 0),
    ],
)
def test_the_innermost_code_of_an_agent_is_responsible_unless_the_sdk_or_the_gateway_executes(frames, agent_id, index):
    stack = stack_of(*frames)
    assert responsible(stack, CATALOG, RUN) == (agent_id, stack[index])


def test_outside_a_run_only_the_code_of_an_agents_module_is_an_agents():
    for frames, agent_id in (
        ([AGENT, STANDARD], "A"),
        ([("other", "/srv/other.py"), SDK], None),
        ([STANDARD, STANDARD], None),
    ):
        assert responsible(stack_of(*frames), CATALOG, None)[0] == agent_id


FILE = """
import time
from agents import Agent

class Mine(Agent):
    pass

async def run_workflow(text: str) -> str:
    helper()
    return "done"

def helper():
    time.sleep(0.3)  # here
"""


@pytest.mark.parametrize("path", ["Stall.py", "Stall/agent.py"])
async def test_a_blocking_agent_file_is_reported(tmp_path, path):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(FILE)
    async with gateway_in_memory(folder=tmp_path, config=FAST, model=script("a")) as g:
        await ask(g, model="Stall")
        await blocks(g)
        [error] = (await g.http.get("/admin/agents/errors")).json()["errors"]
    assert error["message"].endswith("by helper of agent Stall")
    assert error["source"] == f"{file}:13"
    assert error["request_ids"] == ["r1"]


async def test_a_blocking_callback_after_the_run_is_reported_by_its_file(tmp_path):
    (tmp_path / "Later.py").write_text(
        "import asyncio, time\n"
        "def late():\n    time.sleep(0.3)\n"
        "async def run_workflow(text: str) -> str:\n"
        "    asyncio.get_running_loop().call_soon(late)\n    return 'done'\n"
    )
    async with gateway_in_memory(folder=tmp_path, config=FAST, model=script("a")) as g:
        await ask(g, model="Later")
        await blocks(g)
        [error] = (await g.http.get("/admin/agents/errors")).json()["errors"]
    assert error["message"].endswith("by late of agent Later")
    assert error["request_ids"] == []


async def test_a_function_in_a_thread_does_not_block_the_loop():
    @function_tool
    def slow() -> str:
        """Take time, in a thread."""
        time.sleep(0.3)
        return "done"

    agent = Agent(name="x", tools=[slow], model=script(call("slow"), "done"))
    config = {"plugins": {"loop_monitor": {"threshold": 0.25}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        await ask(g)
        found = {m.name: m.value for m in g.gateway.measurements()}
    assert found["agent_gateway.event_loop.blocked"] == 0


async def test_a_block_is_reported_once_while_the_loop_is_blocked():
    reported: list[tuple[str, str]] = []
    seen, freed = threading.Event(), asyncio.Event()

    def blocked(frame):
        reported.append((threading.current_thread().name, frame.f_code.co_name))
        seen.set()

    def free(seconds):
        reported.append((threading.current_thread().name, "free"))
        freed.set()

    detector = StallDetector(0.02, blocked, free)
    detector.start()
    try:
        assert seen.wait(10)  # blocks the loop until it is detected
        time.sleep(0.1)
        async with asyncio.timeout(10):
            await freed.wait()
    finally:
        detector.stop()
    assert reported == [("loop-monitor", "wait"), ("MainThread", "free")]
    assert not [thread for thread in threading.enumerate() if thread.name == "loop-monitor"]


async def test_a_block_that_lasts_is_reported_while_the_loop_is_blocked(monkeypatch):
    monkeypatch.setattr(stall_detector, "STUCK_SECONDS", 0.1)
    stuck = threading.Event()
    reported: list[str] = []

    def report() -> None:
        reported.append(threading.current_thread().name)
        stuck.set()

    detector = StallDetector(0.02, lambda frame: None, lambda seconds: None, report)
    detector.start()
    try:
        assert stuck.wait(10)  # blocks the loop until it is reported
        time.sleep(0.2)
    finally:
        detector.stop()
    assert reported == ["loop-monitor"]


async def test_a_suspended_process_is_not_a_block():
    reported: list[object] = []
    detector = StallDetector(0.05, reported.append, reported.append)
    detector.start()
    try:
        me = os.getpid()
        stopping = await asyncio.create_subprocess_shell(f"kill -STOP {me}; sleep 0.5; kill -CONT {me}")
        async with asyncio.timeout(10):
            await stopping.wait()
            while detector.lag < 0.3:
                await asyncio.sleep(0.01)
    finally:
        detector.stop()
    assert reported == []


async def test_a_computation_that_holds_the_gil_is_a_block():
    freed: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    detector = StallDetector(0.05, lambda frame: None, freed.set_result)
    detector.start()
    try:
        await asyncio.sleep(0)
        # Holds the GIL until it is done.
        sum(range(30_000_000))
        async with asyncio.timeout(10):
            assert await freed > 0.05
    finally:
        detector.stop()


async def test_the_lag_covers_the_last_minute(monkeypatch):
    detector = StallDetector(1.0, lambda frame: None, lambda seconds: None)
    for moment, late in [(1000, 0.5), (1009, 0.1), (1011, 0.2)]:
        detector._record_lag(moment, late)
    for moment, worst in [(1011, 0.5), (1069, 0.5), (1071, 0.2), (1081, 0.0)]:
        monkeypatch.setattr(time, "monotonic", lambda moment=moment: float(moment))
        assert detector.lag == worst
    for moment in range(2000, 3000, 10):
        detector._record_lag(moment, 0.1)
    assert len(detector._worst) == 7


async def test_an_invalid_threshold_is_rejected():
    with pytest.raises(ConfigError, match="at least"):
        async with gateway_in_memory({}, config={"plugins": {"loop_monitor": {"threshold": 0}}}):
            pass
