"""Slow imports do not delay others; changes are attributed to the right module, and disturbed imports are repeated."""

import asyncio
import os
import sys

import pytest

from gateway_core.testing import gateway_in_memory

AGENT = "from agents import Agent\nagent = Agent(name={name!r})\n"
# Waits for another module, which its text names in `sys.modules`; about two turns at most in these tests.
WAIT = "import sys, time\nwhile {name!r} not in sys.modules:\n    time.sleep(0.01)\n"
MARK = "import sys\nsys.modules[{name!r}] = sys\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("quick_of_test", "slow_of_test"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("quick_of_test", "slow_of_test"):
        sys.modules.pop(name, None)


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)


async def test_a_module_loads_while_an_earlier_one_waits_for_it(folder):
    write(
        folder,
        A=WAIT.format(name="quick_of_test") + AGENT.format(name="a"),
        B=MARK.format(name="quick_of_test") + AGENT.format(name="b"),
    )
    async with gateway_in_memory(folder=folder) as g:
        assert list(g.gateway.catalog.agents) == ["A", "B"]
        assert g.gateway.catalog.broken == {}
        assert not any(agent.warnings for agent in g.gateway.catalog.agents.values())


async def test_a_change_during_another_import_is_attributed_by_its_source(folder):
    change = "import json\njson.dumps = print\n"
    write(
        folder,
        A=WAIT.format(name="quick_of_test") + AGENT.format(name="a"),
        B=change + MARK.format(name="quick_of_test") + AGENT.format(name="b"),
    )
    async with gateway_in_memory(folder=folder) as g:
        agents = g.gateway.catalog.agents
        assert agents["A"].warnings == ()
        assert "json.dumps (B.py:2)" in agents["B"].warnings[0]


async def test_an_import_that_lost_its_variables_is_repeated_alone(folder, monkeypatch):
    """A slow module sets a key, which is restored when the next one starts, and needs it afterwards."""
    monkeypatch.setenv("OPENAI_API_KEY", "of the gateway")
    slow = (
        "import os\nos.environ['OPENAI_API_KEY'] = 'mine'\n"
        + WAIT.format(name="quick_of_test")
        + "assert os.environ['OPENAI_API_KEY'] == 'mine'\n"
        + AGENT.format(name="a")
    )
    neighbor = "import os\nassert os.environ['OPENAI_API_KEY'] == 'of the gateway'\n"
    write(folder, A=slow, B=neighbor + MARK.format(name="quick_of_test") + AGENT.format(name="b"))
    async with gateway_in_memory(folder=folder) as g:
        assert g.gateway.catalog.broken == {}
        assert os.environ["OPENAI_API_KEY"] == "of the gateway"
        assert g.gateway.catalog.agents["B"].warnings == ()
        [warning] = g.gateway.catalog.agents["A"].warnings
        assert "OPENAI_API_KEY" in warning


async def test_a_failure_next_to_another_import_is_diagnosed_alone(folder):
    write(
        folder,
        A=WAIT.format(name="quick_of_test") + "nothing\n",
        B=MARK.format(name="quick_of_test") + AGENT.format(name="b"),
    )
    async with gateway_in_memory(folder=folder) as g:
        assert list(g.gateway.catalog.agents) == ["B"]
        error = g.gateway.catalog.broken["A"].error
        assert (error.line, error.code) == (4, "import")


async def test_many_hanging_imports_delay_no_other_agent(folder):
    for number in range(6):
        write(folder, **{f"Hang{number}": "import threading\nthreading.Event().wait()\n"})
    write(folder, Z=AGENT.format(name="z"))
    config = {"catalog": {"load_timeout": "5s"}}
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with gateway_in_memory(folder=folder, config=config) as g:
        assert list(g.gateway.catalog.agents) == ["Z"]
        assert {each.error.code for each in g.gateway.catalog.broken.values()} == {"timeout"}
        assert loop.time() - began < 25  # one after the other, they would take 30 s
