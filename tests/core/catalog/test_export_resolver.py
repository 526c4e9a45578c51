"""What a module exports is found by type, and a module that offers nothing, or too much, is told what to do."""

from types import ModuleType

import pytest
from agents import Agent, handoff

from gateway_core.catalog.export_resolver import resolve
from gateway_core.catalog.runnables import AgentRunnable, WorkflowRunnable
from gateway_core.errors import LoadError

ONE, TWO = Agent(name="one"), Agent(name="two")


def module(**names):
    made = ModuleType("made", "What it is.\n\nMore of it.")
    vars(made).update(names)
    return made


async def served(exported):
    return (await resolve(exported, "here")).runnable


@pytest.mark.parametrize(
    "names",
    [
        {"agent": ONE, "other": TWO},
        {"root_agent": ONE, "other": TWO},
        {"whatever": ONE},
        {"a": ONE, "the_same": ONE},
        {"triage_agent": ONE, "other": TWO},
        {"build_agent": lambda: ONE},
    ],
)
async def test_the_agent_to_serve_is_found(names):
    assert (await served(module(**names))).agent is ONE


async def test_the_entry_is_the_one_that_nobody_hands_off_to():
    helper, tool = Agent(name="helper"), Agent(name="tool")
    entry = Agent(name="entry", handoffs=[handoff(helper)], tools=[tool.as_tool("t", "d")])
    runnable = await served(module(helper=helper, tool=tool, entry=entry))
    assert runnable.agent is entry
    assert [agent.name for agent in runnable.agents] == ["entry", "helper", "tool"]


async def test_agents_that_hand_back_are_walked_once():
    one, two = Agent(name="one"), Agent(name="two")
    one.handoffs, two.handoffs = [two], [one]
    assert len((await served(module(agent=one, two=two))).agents) == 2


async def test_a_workflow_wins_over_the_agents_it_uses():
    class WorkflowInput:
        pass

    async def run_workflow(workflow_input):
        return None

    runnable = await served(module(agent=ONE, run_workflow=run_workflow, WorkflowInput=WorkflowInput))
    assert isinstance(runnable, WorkflowRunnable)
    assert runnable.input_type is WorkflowInput


async def test_the_workflows_input_type_is_found_by_its_annotation():
    class Question:
        pass

    async def flow(question: Question) -> None:
        return None

    assert (await served(flow)).input_type is Question


async def test_entry_points_may_name_an_agent_or_a_factory():
    async def build():
        return ONE

    assert isinstance(await served(ONE), AgentRunnable)
    assert (await served(build)).agent is ONE


async def _pieces(text):
    yield text


@pytest.mark.parametrize("exported", [_pieces, module(a=ONE, run_workflow=_pieces)])
async def test_a_workflow_may_be_a_generator(exported):
    runnable = await served(exported)
    assert isinstance(runnable, WorkflowRunnable)
    assert runnable.function is _pieces


def _plain(text):
    return text


async def test_an_agent_of_the_right_name_is_served_beside_a_plain_function():
    assert (await served(module(agent=ONE, run_workflow=_plain))).agent is ONE


@pytest.mark.parametrize(
    ("exported", "told"),
    [
        (module(), "there is no Agent in it; it has nothing at its top level"),
        (module(agnet=1), "it has agnet (int)"),
        (module(a=ONE, b=TWO), "several agents could be the one to serve: a, b"),
        (module(build_agent=lambda: 1), "build_agent() returned a int, not an Agent"),
        (module(build_agent=lambda key: ONE), "build_agent() must be callable without arguments"),
        (module(agent=ONE, __gateway__=1), "`__gateway__` must be a dict"),
        (module(a=ONE, run_workflow=_plain), "`run_workflow` is a plain function"),
        (7, "names a int"),
    ],
)
async def test_what_cannot_be_served_is_told(exported, told):
    with pytest.raises(LoadError) as caught:
        await resolve(exported, "here")
    assert told in str(caught.value)
    assert caught.value.code == "export"


async def test_descriptions_come_from_the_settings_the_agent_or_the_docstring():
    described = Agent(name="x", handoff_description="By the agent.")
    assert (await resolve(module(agent=ONE), "")).description == "What it is."
    assert (await resolve(module(agent=described), "")).description == "By the agent."
    settings = {"description": "By the settings."}
    assert (await resolve(module(agent=described, __gateway__=settings), "")).description == "By the settings."
