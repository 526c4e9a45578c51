"""An author writes an agent with own, shared and MCP tools, tests it, and repairs what breaks.

The pages give the agent, its tests and the commands.
"""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.terminal import Page, Terminal, step

README = Page("README.md")
TESTING = Page("docs/guides/testing-agents.md")
REQUIREMENTS = Page("docs/plugins/requirements.md")
COMMANDS = Page("docs/reference/command-line.md")

# Not installed with the gateway, small, and without requirements.
PACKAGE = "humanize"

COUNT = f"""
import {PACKAGE}
from agents import Agent, function_tool


@function_tool(failure_error_function=None)
def spell(number: int) -> str:
    \"\"\"Spell a number.\"\"\"
    raise LookupError("no such number")


agent = Agent(name="Count", tools=[spell])
"""
CRASHING = 'import sys\nprint("no database at db.example", file=sys.stderr)\nsys.exit(3)\n'
SERVER = '''
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def find(text: str) -> str:
    """Find a note."""
    return "a note about " + text


server.run()
'''
NOTES = """
[plugins.mcp_tools.notes]
kind = "stdio"
command = ["python", "server.py"]

[agents.Notes]
tools = ["notes/find"]
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def installed_package():
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    remove = [uv, "pip", "uninstall", "--quiet", "--python", sys.executable, PACKAGE]
    subprocess.run(remove, check=True)
    yield
    subprocess.run(remove, check=True)


@pytest.mark.timeout(900)
def test_author(tmp_path, port):
    environment = {"GATEWAY__SERVER__PORT": str(port), "GATEWAY__PLUGINS__UPSTREAMS__PROBE": "false"}
    server = Terminal(tmp_path, environment=environment)
    shell = Terminal(tmp_path, environment=environment)

    def ask(model: str, text: str) -> str:
        command = README.command("curl ").replace(":8000", f":{port}")
        command = command.replace("SampleAgent", model).replace("What is the weather in Paris?", text)
        return shell.run(command)

    with server, shell:
        with step("write an agent with a gateway tool, and its tests"):
            for language in ("py", "python"):
                for block in TESTING.blocks(language):
                    name = found[1] if (found := re.match(r"# (\S+\.py)\n", block)) else "conftest.py"
                    if found or "pytest_plugins" in block:
                        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                        (tmp_path / name).write_text(block)
        with step("run the tests"):
            # The first command installs pytest, with which this test runs.
            assert TESTING.commands() == ["pip install pytest", "pytest"]
            assert re.search(r"^=* ?2 passed", shell.run("pytest"), re.MULTILINE)
        with step("serve the agent"):
            server.start("agent-gateway serve")
            server.expect(r"^  models .*Greeter")
            server.expect(r"Press Ctrl\+C to stop")
        with step("break a file of tools: the terminal and `check` name the line"):
            (tmp_path / "tools" / "badges.py").write_text("import nothing_like_it\n")
            server.expect(r"tools/badges\.py:1: import failed: .*nothing_like_it")
            output = shell.run(README.command("agent-gateway check"), status=1)
            assert re.search(r"refused .*tools/badges\.py:1 .*nothing_like_it", output)
        with step("fix it"):
            (tmp_path / "tools" / "badges.py").write_text(TESTING.block("# tools/badges.py"))
            server.expect(r"added|reloaded")
        with step("add an agent with a requirement that is not installed: a line with the cure"):
            header = REQUIREMENTS.block("# /// script", "python")
            header = re.sub(r"dependencies = .*", f'dependencies = ["{PACKAGE}"]', header)
            (tmp_path / "agents" / "Count.py").write_text(header + COUNT)
            cure = server.expect(rf"{PACKAGE}: missing \(run: (agent-gateway deps install [^)]*)\)")[1]
        with step("follow the cure; the running gateway loads the agent"):
            assert f"+ {PACKAGE}==" in shell.run(cure, seconds=300)
            server.expect(r"packages were installed; reloading")
            server.expect(r"(added|reloaded) Count \(1 tool\) in ")
        with step("see the exception of a failed tool on the own machine"):
            assert "no such number" in ask("Count", "Spell 3")
        with step("add an MCP server that crashes: `check` shows its last words"):
            (tmp_path / "agents" / "Notes.py").write_text("from agents import Agent\nagent = Agent(name='Notes')\n")
            (tmp_path / "server.py").write_text(CRASHING)
            (tmp_path / "gateway.toml").write_text(NOTES)
            output = shell.run(README.command("agent-gateway check"), status=1)
            assert re.search(r"^Notes +broken .*MCP server notes is down: .*no database at db\.example", output, re.M)
        with step("restart, fix the server, and reload: the gateway connects and loads the agent"):
            server.interrupt()
            assert server.end()[0] == 0
            server.start("agent-gateway serve")
            server.expect(r"^  broken .*Notes: .*no database at db\.example")
            server.expect(r"Press Ctrl\+C to stop")
            (tmp_path / "server.py").write_text(SERVER)
            assert "agent-gateway reload" in COMMANDS.commands()
            shell.start("agent-gateway reload")
            server.expect(r"(added|reloaded) Notes \(1 tool\) in ")
            shell.end()
        with step("ask it"):
            assert "a note about" in ask("Notes", "find something")
        server.interrupt()
        assert server.end()[0] == 0
