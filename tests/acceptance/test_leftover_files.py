"""Files and sockets that a tool leaves open are counted and logged with the tool."""

import re

import httpx2

from tests.acceptance.conftest import serving
from tests.acceptance.test_chat import user

AGENT = """
import os, socket

from agents import Agent, function_tool
from gateway_core.testing import call, script

kept = []

@function_tool
def leak() -> str:
    kept.append(os.open("/etc/hostname", os.O_RDONLY))
    kept.append(socket.socket())
    return "ok"

@function_tool
async def tidy() -> str:
    with open("/etc/hostname") as file, socket.socket():
        return file.read()

agent = Agent(name="x", tools=[leak, tidy], model=script(*[call("tidy"), call("leak"), "done"] * 6))
"""


def left(server) -> dict[str, float]:
    metrics = httpx2.get(f"{server.url}/metrics", timeout=20).text
    found = re.findall(r'^agent_gateway_files_left{.*tool="(.*)"} (.+)$', metrics, re.MULTILINE)
    return {tool: float(value) for tool, value in found if tool}


def test_files_that_a_tool_leaves_open_are_counted_and_logged(tmp_path):
    agent = tmp_path / "agents" / "Leaky" / "agent.py"
    agent.parent.mkdir(parents=True)
    agent.write_text(AGENT)
    with serving(tmp_path, "--offline") as server, httpx2.Client() as other:
        for _ in range(6):
            server.client().chat.completions.create(model="Leaky", messages=user("go"))
            assert other.get(f"{server.url}/healthz", timeout=20).status_code == 200
        assert left(server) == {"leak": 12}
        lines = [line for line in server.text.splitlines() if "leaves files or sockets open" in line]
        assert len(lines) == 1
        assert "the tool leak of Leaky leaves files or sockets open: 10 so far" in lines[0]
