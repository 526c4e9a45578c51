"""Reports of event-loop blocking: the agent, the tool, the file and the line, but no values."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
from agents import Agent, function_tool
from gateway_plugins.loop_monitor.stall_detector import StallDetector

from gateway_core import ConfigError
from gateway_core.testing import call, gateway_in_memory, script

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
    assert f"{__file__}:{line} stall" in caplog.text
    assert "canary" not in caplog.text


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
