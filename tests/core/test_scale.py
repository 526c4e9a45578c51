"""Many agents and many reloads: working agents are served, broken ones are listed, and memory does not grow."""

import asyncio
import gc
import sys
import weakref

import pytest

from gateway_core.testing import gateway_in_memory, script

GOOD = "from agents import Agent\nfrom helper import INSTRUCTIONS\nagent = Agent(name='x', instructions=INSTRUCTIONS)\n"
BROKEN = "from agents import Agent\nimport does_not_exist_anywhere\n"


@pytest.fixture
def folder(tmp_path):
    for number in range(1000):
        agent = tmp_path / f"group{number % 10}" / f"Agent{number}"
        agent.mkdir(parents=True)
        (agent / "agent.py").write_text(BROKEN if number % 20 == 0 else GOOD)
        (agent / "helper.py").write_text(f"INSTRUCTIONS = 'number {number}'\n")
    return tmp_path


async def test_a_thousand_agents_of_which_fifty_are_broken(folder):
    async with gateway_in_memory(folder=folder, model=script("hello")) as g:
        catalog = g.gateway.catalog
        assert (len(catalog.agents), len(catalog.broken)) == (950, 50)
        assert catalog.agents["group7/Agent17"].runnable.agent.instructions == "number 17"
        answer = await g.openai.chat.completions.create(
            model="group9/Agent999", messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.choices[0].message.content == "hello"
        listed = (await g.http.get("/admin/agents")).json()["agents"]
        assert sum(agent["state"] == "broken" for agent in listed) == 50
        before = dict(catalog.agents)
        (folder / "group1" / "Agent1" / "helper.py").write_text("INSTRUCTIONS = 'changed'\n")
        after = (await g.gateway.reload()).agents
        assert [agent_id for agent_id in after if after[agent_id] is not before[agent_id]] == ["group1/Agent1"]


async def test_two_hundred_reloads_release_replaced_agents(tmp_path):
    (tmp_path / "One").mkdir()
    (tmp_path / "One" / "helper.py").write_text("INSTRUCTIONS = 'x'\n")
    agents: list[weakref.ref[object]] = []
    messages = [{"role": "user", "content": "hi"}]
    async with gateway_in_memory(folder=tmp_path, model=script(*["hello"] * 200)) as g:
        before = len([name for name in sys.modules if name.startswith("gateway_agent_")])
        for number in range(200):
            (tmp_path / "One" / "agent.py").write_text(f"{GOOD}number = {number}\n")
            catalog = await g.gateway.reload()
            agents.append(weakref.ref(catalog.agents["One"].runnable.agent))
            await g.openai.chat.completions.create(model="One", messages=messages)
        del catalog

        gc.collect()
        # The served agent, its helper and its package.
        while len([name for name in sys.modules if name.startswith("gateway_agent_")]) > before + 3:
            await asyncio.sleep(0)  # bounded by the timeout of the test
        gc.collect()
        # asyncio keeps up to a hundred cancelled timers, with their contexts.
        assert sum(agent() is not None for agent in agents) <= 50
