"""Scripts as models: `input()` returns the message, a further one ends the script, and its runs are authorized."""

import asyncio
import builtins
import logging

import openai
import pytest

from gateway_core import Decision, hookimpl
from gateway_core.testing import call, gateway_in_memory, script

HEAD = """
import asyncio
import sys

from agents import Agent, Runner, function_tool

called = []


@function_tool
def look(place: str) -> str:
    \"\"\"Look.\"\"\"
    called.append(place)
    return "seen"


agent_of = lambda: Agent(name="S", instructions="Script.", tools=[look])

"""


@pytest.fixture
def serve(tmp_path):
    def serve(main, *turns, **options):
        (tmp_path / "S.py").write_text(HEAD + main)
        config = {"agents": {"S": {"entry": "main"}}}
        return gateway_in_memory(folder=tmp_path, config=config, **{"model": script(*turns), **options})

    return serve


async def ask(g, text="hi"):
    completion = await g.openai.chat.completions.create(model="S", messages=[{"role": "user", "content": text}])
    return completion.choices[0].message.content


@pytest.mark.parametrize(
    "main",
    [
        "async def main():\n    while True:\n        print(await Runner.run(agent_of(), input('> ')))\n",
        "def main():\n    while True:\n        print(Runner.run_sync(agent_of(), input('> ')))\n",
        "def main():\n    print(asyncio.run(Runner.run(agent_of(), input('> '))))\n    sys.exit()\n",
        "async def main():\n    text = await asyncio.to_thread(input)\n    await Runner.run(agent_of(), text)\n",
        (
            "async def main():\n    loop = asyncio.get_running_loop()\n"
            "    await Runner.run(agent_of(), await loop.run_in_executor(None, input, '> '))\n"
        ),
        (
            "async def main():\n    while True:\n        try:\n            await Runner.run(agent_of(), input('> '))\n"
            "        except Exception as error:\n            print(error)\n"
        ),
        (
            "def main():\n    while True:\n        try:\n            Runner.run_sync(agent_of(), input('> '))\n"
            "        except (EOFError, KeyboardInterrupt):\n            break\n"
        ),
        "async def main():\n    while True:\n        await Runner.run(agent_of(), 'own text')\n        input('> ')\n",
    ],
)
async def test_one_message_is_answered(serve, main):
    async with serve(main, "hello", "again") as g:
        assert await ask(g) == "hello"
        assert await ask(g) == "again"
        model = g.gateway.hooks.model_provider(None, None).get_model(None)
        assert [recorded.input[-1]["content"] for recorded in model.calls] == ["hi", "hi"]


async def test_a_script_is_not_reported_as_a_change_of_input(serve, monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda prompt="": "typed")
    async with serve("def main():\n    Runner.run_sync(agent_of(), input())\n", "hello") as g:
        turns = g.gateway._loader._turns
        await ask(g)
        assert turns.process.restore() == []


async def test_input_at_import_fails_at_once(serve, tmp_path, monkeypatch):
    # As on a terminal: without the gateway, it would wait for a person.
    monkeypatch.setattr("gateway_core.runs.script._terminal_input", lambda prompt: "typed")
    (tmp_path / "Asks.py").write_text("from agents import Agent\nagent = Agent(name='a')\nname = input('Name: ')\n")
    async with serve("def main():\n    Runner.run_sync(agent_of(), input())\n") as g:
        [warning] = g.gateway.catalog.agents["Asks"].warnings
        assert "Asks.py:3: the module waits for input() when it is imported" in warning


async def test_input_outside_scripts_reads_the_terminal(serve, monkeypatch):
    async with serve("def main():\n    Runner.run_sync(agent_of(), input())\n", "hello") as g:
        await ask(g)
    reading = iter(["typed"])
    monkeypatch.setattr("gateway_core.runs.script._terminal_input", lambda prompt: next(reading))
    assert builtins.input("> ") == "typed"


async def test_a_script_that_runs_no_agent_is_an_error(serve):
    async with serve("def main():\n    input()\n    input()\n") as g:
        with pytest.raises(openai.InternalServerError, match="ended without running an agent") as caught:
            await ask(g)
        assert caught.value.code == "no_answer"


async def test_a_script_that_exits_with_an_error_fails(serve):
    async with serve("def main():\n    sys.exit('no key')\n") as g:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask(g)
        assert caught.value.code == "agent_exit"


async def test_an_end_of_file_of_its_own_is_an_error(serve, caplog):
    caplog.set_level(logging.CRITICAL)
    async with serve("def main():\n    raise EOFError\n") as g:
        with pytest.raises(openai.InternalServerError, match="the agent failed"):
            await ask(g)


async def test_the_tools_of_a_script_are_authorized(serve):
    class Refusing:
        def __init__(self, *_):
            pass

        @hookimpl
        async def authorize_tool(self, run, tool):
            assert (run.agent_id, tool.agent_id, tool.name) == ("S", "S", "look")
            return Decision(False, "test", reason="not today")

    main = "def main():\n    print(Runner.run_sync(agent_of(), 'x').final_output)\n"
    async with serve(main, call("look", place="here"), "done", plugins={"refusing": Refusing}) as g:
        assert await ask(g) == "done"
        model = g.gateway.hooks.model_provider(None, None).get_model(None)
        assert "not today" in model.calls[-1].input[-1]["output"]


async def test_a_scripts_thread_starts_no_run_after_its_request(serve, tmp_path):
    started, ended = tmp_path / "started", tmp_path / "ended"
    main = f"""
import time
from pathlib import Path


def main():
    Path({str(started)!r}).touch()
    while not Path({str(tmp_path / "go")!r}).exists():
        time.sleep(0.01)
    try:
        Runner.run_sync(agent_of(), "x")
    finally:
        Path({str(ended)!r}).touch()
"""
    async with serve(main, "never") as g:
        request = asyncio.create_task(ask(g))
        async with asyncio.timeout(10):
            while not started.exists():
                await asyncio.sleep(0.01)
            request.cancel()
            await asyncio.wait([request])
            while g.gateway.engine.active:
                await asyncio.sleep(0.01)
            (tmp_path / "go").touch()
            while not ended.exists():
                await asyncio.sleep(0.01)
        assert g.gateway.hooks.model_provider(None, None).get_model(None).calls == ()


@pytest.mark.parametrize("given", ["input()", "'own text'"])
async def test_an_image_reaches_the_run(serve, given):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    main = f"async def main():\n    await Runner.run(agent_of(), {given})\n"
    turns = script("seen")
    async with serve(main, model=turns) as g:
        assert await ask(g, [{"type": "text", "text": "what is this?"}, image]) == "seen"
    [message] = turns.calls[0].input
    assert [part["type"] for part in message["content"]] == ["input_text", "input_image"]
    assert message["content"][0]["text"] == "what is this?"
