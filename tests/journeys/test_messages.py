"""The messages of `agent-gateway serve`: on a terminal, and elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.journeys.terminal import Terminal, step

SECONDS = 60.0
AGENT = """from agents import Agent, function_tool


@function_tool
def look() -> str:
    '''Look.'''
    return ""


agent = Agent(name="a", tools=[look])
"""
SLOW = """import pathlib, time

while not pathlib.Path({go!r}).exists():
    time.sleep(0.05)

from agents import Agent

agent = Agent(name="slow")
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def ask(url: str, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=SECONDS).status_code


def test_an_author_sees_what_happened(tmp_path):
    agents, tools, settings = tmp_path / "agents", tmp_path / "tools", tmp_path / "gateway.toml"
    write(agents / "A" / "agent.py", AGENT)
    write(settings, "")
    with Terminal(tmp_path, columns=80, environment={"NO_COLOR": "1"}) as terminal:
        terminal.start("agent-gateway serve --offline --port 0")
        terminal.expect(r"^Starting Agent Gateway")
        url = terminal.expect(r"^Agent Gateway listening on (http://\S+)/v1")[1]
        terminal.expect(r"Press Ctrl\+C to stop")
        assert (ask(url, "A"), ask(url, "B")) == (200, 404)
        terminal.expect(r"^\d\d:\d\d:\d\d 200 POST /v1/chat/completions A [\d.]+ m?s [0-9a-f]{8}\r?$")
        terminal.expect(r"^\d\d:\d\d:\d\d 404 POST /v1/chat/completions [\d.]+ m?s [0-9a-f]{8}\r?$")
        broken = AGENT + "x = (\n"
        for change, path, text, line in [
            ("edit", agents / "A" / "agent.py", AGENT + "\n", r"reloaded A \(1 tool\) in [\d.]+ m?s"),
            (
                "break",
                agents / "A" / "agent.py",
                broken,
                r"WARNING load: \S+:11: SyntaxError: .* \(fix",
            ),
            ("fix", agents / "A" / "agent.py", AGENT, r"reloaded A \(1 tool\) in [\d.]+ m?s"),
            ("add", agents / "labs" / "N" / "agent.py", AGENT, r"added labs/N \(1 tool\) in [\d.]+ m?s"),
            ("remove", agents / "labs" / "N" / "agent.py", None, r"removed labs/N"),
            ("tool", tools / "t.py", "def t() -> str:\n    '''T.'''\n    return ''\n", r"added gateway tool t"),
            ("break tool", tools / "t.py", "def t(\n", r"WARNING plugin: \S+t\.py:1: .* \(fix the file"),
            ("configure", settings, "[runs]\nmax_turns = 3\n", r"reloaded the configuration: \[runs\]"),
            ("break it", settings, "[runs]\nmax_turn = 3\n", r"WARNING config: .*did you mean 'max_turns'"),
        ]:
            with step(f"{change}: a line in the terminal"):
                write(path, text) if text is not None else path.unlink()
                terminal.expect(rf"^\d\d:\d\d:\d\d {line}")
        terminal.interrupt()
        assert terminal.end()[0] == 0


def test_the_start_shows_which_agent_is_slow(tmp_path):
    write(tmp_path / "agents" / "A.py", AGENT)
    write(tmp_path / "agents" / "Slow.py", SLOW.format(go=str(tmp_path / "go")))
    with Terminal(tmp_path) as terminal:
        terminal.start("agent-gateway serve --offline --port 0")
        found = terminal.expect(r"loaded (\d+) of (\d+) agents; still loading: (.*)\r?$")
        assert int(found[1]) == int(found[2]) - 1
        assert found[3].strip() == "Slow"
        write(tmp_path / "go", "")
        terminal.expect(r"Press Ctrl\+C to stop")
        terminal.interrupt()
        terminal.end()


def test_there_are_no_control_characters_elsewhere(tmp_path):
    write(tmp_path / "agents" / "A.py", AGENT)
    write(tmp_path / "gateway.toml", '[plugins.request_log]\nformat = "console"\n')
    command = [str(Path(sys.executable).with_name("agent-gateway")), "serve", "--offline", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if found := re.match(r"Agent Gateway listening on (http://\S+)/v1", line):
                url = found[1]
            if line.startswith("Press Ctrl+C"):
                assert (ask(url, "A"), ask(url, "B")) == (200, 404)
                process.terminate()
    assert " 200 POST /v1/chat/completions A " in output
    assert not set(output) & {*map(chr, range(32)), "\x7f"} - {"\n"}
