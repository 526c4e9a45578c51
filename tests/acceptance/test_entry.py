"""The export that a module serves, chosen by the operator or by the module's own code, with the real command."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.acceptance.conftest import COMMAND, Server, serving

SECONDS = 30.0
TIE = "from agents import Agent\n\none = Agent(name='first', instructions='I am one.')\ntwo = Agent(name='second')\n"
CHAT = """
import asyncio

from agents import Agent, Runner


async def main():
    agent = Agent(name="Chat", instructions="You chat.")
    print("Welcome!")
    while True:
        question = input("You: ")
        result = await Runner.run(agent, question)
        print(result.final_output)


if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path, upstream: Any) -> Path:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Team.py").write_text(TIE)
    (tmp_path / "agents" / "Chat.py").write_text(CHAT)
    (tmp_path / "agents" / "Late.py").write_text(CHAT.replace("def main()", "def start()"))
    configure(tmp_path, upstream, "")
    return tmp_path


def configure(folder: Path, upstream: Any, tables: str) -> None:
    upstreams = f'[plugins.upstreams.fake]\nbase_url = "{upstream.base_url}"\n'
    (folder / "gateway.toml").write_text(f"{upstreams}[plugins.entry_point_discovery]\nenabled = false\n{tables}")


def ask(server: Server, model: str, text: str) -> str | None:
    messages: Any = [{"role": "user", "content": text}]
    return server.client().chat.completions.create(model=model, messages=messages).choices[0].message.content


def listed(server: Server) -> list[str]:
    return sorted(model.id for model in server.client().models.list())


def wait_for(server: Server, holds: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, (listed(server), server.text)
        time.sleep(0.05)


def check(folder: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run([COMMAND, "check", "--json"], cwd=folder, capture_output=True, text=True, timeout=60)
    return {row["model"]: row for row in json.loads(done.stdout)}


def test_an_entry_is_effective_without_a_restart(folder, upstream):
    with serving(folder) as server:
        assert listed(server) == ["Chat", "Team/one", "Team/two"]
        with pytest.raises(openai.NotFoundError, match="'Team/one', 'Team/two'"):
            ask(server, "Team", "x")
        assert ask(server, "Team/two", "say: hello") == "hello"
        assert 'Late.py:8: `Agent(…)` is created inside start() (set [agents.Late] entry = "start"' in server.text
        configure(folder, upstream, '[agents.Team]\nentry = "one"\n[agents.Late]\nentry = "start"\n')
        wait_for(server, lambda: listed(server) == ["Chat", "Late", "Team"])
        assert ask(server, "Team", "say: hello") == "hello"
        assert upstream.records[-1].request.items[0]["content"] == "I am one."
        assert ask(server, "Late", "say: late") == "late"
        configure(folder, upstream, '[agents.Team]\nentry = "on"\n[agents.Late]\nentry = "start"\n')
        wait_for(server, lambda: "did you mean 'one'?" in httpx2.get(f"{server.url}/admin/agents").text)
        assert listed(server) == ["Chat", "Late", "Team"], "the last good version stays"


def test_check_and_serve_agree(folder, upstream):
    rows = check(folder)
    assert {name: (row["state"], row["serves"]) for name, row in rows.items()} == {
        "Chat": ("ok", "main()"),
        "Team/one": ("ok", "one"),
        "Team/two": ("ok", "two"),
        "Late": ("broken", ""),
    }
    with serving(folder) as server:
        assert listed(server) == sorted(name for name, row in rows.items() if row["state"] == "ok")
        assert "Chat: main() runs for each request" in server.text


def test_a_chat_loop_answers_each_request(folder, upstream):
    with serving(folder) as server:
        assert ask(server, "Chat", "say: one two") == "one two"
        messages: Any = [{"role": "user", "content": "say: three four"}]
        chunks = server.client().chat.completions.create(model="Chat", messages=messages, stream=True)
        deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(deltas) == "three four"
