"""A newcomer follows the README, word for word: install, serve, ask, write an agent, break it and fix it.

Only the port differs, because another program may use the one of the README.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.terminal import ROOT, Page, Terminal, step

README = Page("README.md")
PORT = 8000
INSTALL_SECONDS = 600.0


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the repository without what is not part of it."""
    ignored = shutil.ignore_patterns(
        ".git", ".nox", "*.egg-info", "__pycache__", ".agent-gateway", "dist", "node_modules"
    )
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored))


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A new virtual environment, and a free port."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = os.pathsep.join((str(tmp_path / "venv" / "bin"), "/usr/local/bin", "/usr/bin", "/bin"))
    # Without a model server, as on the newcomer's machine.
    return {"PATH": path, "GATEWAY__SERVER__PORT": str(port), "GATEWAY__PLUGINS__UPSTREAMS__PROBE": "false"}


@pytest.mark.timeout(1200)
def test_the_readme(checkout, environment):
    def local(text: str) -> str:
        return text.replace(f":{PORT}", f":{environment['GATEWAY__SERVER__PORT']}")

    greeter = README.block('name="Greeter"', "python")
    file = checkout / "agents" / "Greeter" / "agent.py"
    server = Terminal(checkout, environment=environment)
    other = Terminal(checkout, environment=environment)
    with server, other:
        with step("install, and serve the sample agents"):
            server.start(README.command("pip install . "))
            server.expect(r"^  models .*SampleAgent", seconds=INSTALL_SECONDS)
            server.expect(r"Press Ctrl\+C to stop")
        with step("ask with curl"):
            assert "Paris" in other.run(local(README.command("curl ")))
        with step("ask with the official client"):
            (checkout / "client.py").write_text(local(README.block("from openai import OpenAI", "python")))
            assert "Paris" in other.run("python client.py")
        server.interrupt()
        assert server.end()[0] == 0
        with step("create an agent"):
            assert "agents/Greeter/agent.py" in other.run(README.command("agent-gateway new "))
        with step("check it"):
            assert "Greeter" in other.run(README.command("agent-gateway check"))
        with step("serve it"):
            assert "agent-gateway serve" in README.commands()
            server.start("agent-gateway serve")
            server.expect(r"^  models .*Greeter")
            server.expect(r"Press Ctrl\+C to stop")
        with step("replace it by the agent of the README: a line in the terminal"):
            file.write_text(greeter)
            server.expect(r"reloaded Greeter \(1 tool\) in ")
        with step("ask it, without a server"):
            assert "greet" in other.run('agent-gateway chat Greeter "Greet Ada."')
        with step("break it: a line with the cure"):
            file.write_text(greeter.replace("tools=[greet])", "tools=[greet]"))
            server.expect(r"agents/Greeter/agent\.py:10: SyntaxError: '\(' was never closed \(fix the syntax error\)")
        with step("fix it: a line in the terminal"):
            file.write_text(greeter)
            server.expect(r"Greeter works again")
        with step("add an agent with a gateway tool"):
            weather = checkout / "agents" / "Weather.py"
            weather.write_text(README.block("use_gateway_tool", "python"))
            server.expect(r"added Weather \(2 tools\) in ")
        server.interrupt()
        assert server.end()[0] == 0
