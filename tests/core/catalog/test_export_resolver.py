"""Resolution of exports by type and name; errors for modules that export no agent, or several."""

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


async def found(exported):
    (each,) = (await resolve(exported, "here")).agents
    return each


async def served(exported):
    return (await found(exported)).runnable


@pytest.mark.parametrize(
    "names",
    [
        {"agent": ONE, "other": TWO},
        {"root_agent": ONE, "other": TWO},
        {"any_name": ONE},
        {"a": ONE, "the_same": ONE},
        {"triage_agent": ONE, "other": TWO},
        {"build_agent": lambda: ONE},
    ],
)
async def test_the_agent_to_serve_is_found(names):
    assert (await served(module(**names))).agent is ONE


async def test_the_entry_is_the_agent_that_is_not_a_handoff_target():
    helper, tool = Agent(name="helper"), Agent(name="tool")
    entry = Agent(name="entry", handoffs=[handoff(helper)], tools=[tool.as_tool("t", "d")])
    runnable = await served(module(helper=helper, tool=tool, entry=entry))
    assert runnable.agent is entry
    assert [agent.name for agent in runnable.agents] == ["entry", "helper", "tool"]


async def test_cyclic_handoffs_are_visited_once():
    one, two = Agent(name="one"), Agent(name="two")
    one.handoffs, two.handoffs = [two], [one]
    assert len((await served(module(agent=one, two=two))).agents) == 2


async def test_a_workflow_takes_precedence_over_the_agents_it_uses():
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


async def test_an_agent_of_the_right_name_takes_precedence_over_a_synchronous_function():
    assert (await served(module(agent=ONE, run_workflow=_plain))).agent is ONE


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        (module(), "the module exports no Agent; its top level is empty"),
        (module(agnet=1), "its top-level names are agnet (int)"),
        (module(é=ONE, è=TWO), "the module exports several agents: é, è"),
        (module(build_agent=lambda: 1), "build_agent() returned an object of type int, not an Agent"),
        (module(build_agent=lambda key: ONE), "build_agent() must be callable without arguments; it requires key"),
        (module(agent=ONE, __gateway__=1), "`__gateway__` must be a dict"),
        (module(a=ONE, run_workflow=_plain), "`run_workflow` is a synchronous function"),
        (7, "an object of type int cannot be served"),
    ],
)
async def test_an_export_that_cannot_be_served_is_an_error(exported, message):
    with pytest.raises(LoadError) as caught:
        await resolve(exported, "here")
    assert message in str(caught.value)
    assert caught.value.code == "export"


async def test_descriptions_come_from_the_settings_the_agent_or_the_docstring():
    described = Agent(name="x", handoff_description="By the agent.")
    assert (await found(module(agent=ONE))).description == "What it is."
    assert (await found(module(agent=described))).description == "By the agent."
    settings = {"description": "By the settings."}
    assert (await found(module(agent=described, __gateway__=settings))).description == "By the settings."
