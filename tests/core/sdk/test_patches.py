"""The patched check of agents' tools gives the same results as the SDK's check."""

import contextvars
import copy

from agents import Agent, function_tool
from agents.run_internal import agent_tool_configuration as checks
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_core.runs import runner
from gateway_core.sdk import patches


@function_tool
def one() -> str:
    """One."""
    return ""


@function_tool
def two() -> str:
    """Two."""
    return ""


LISTS = [[], [one], [two], [one, two], [one, one]]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 4)),
        st.tuples(st.just("end"), st.integers(0, 4)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("assign"), st.integers(0, len(LISTS) - 1)),
        st.tuples(st.just("change"), st.integers(0, 1)),
    ),
    max_size=30,
)


def play(steps, observe):
    """Return the result of each step with the given comparison."""
    before, checks._observe_tools = checks._observe_tools, observe
    results = []
    agent = Agent(name="x", tools=[one])
    open_ = {}
    try:
        for action, number in steps:
            if action == "begin" and number not in open_:
                # Each run has a separate task context.
                open_[number] = contextvars.copy_context(), checks.agent_tool_configuration_run(agent)
                context, run = open_[number]
                context.run(run.__enter__)
            elif action == "end" and number in open_:
                context, run = open_.pop(number)
                context.run(run.__exit__, None, None, None)
            elif action == "look":
                try:
                    checks.snapshot_agent_tools(agent)
                except Exception as error:
                    results.append(type(error).__name__)
                else:
                    results.append("fine")
            elif action == "assign":
                agent.tools = copy.copy(LISTS[number])
            elif action == "change":
                agent.tools.append([one, two][number])
            results.append([resolution.conflicted for resolution in checks._resolutions.get(id(agent), [])])
    finally:
        for context, run in open_.values():
            context.run(run.__exit__, None, None, None)
        checks._observe_tools = before
    return results


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_the_results_are_the_same(steps):
    runner.install()
    ours = checks._observe_tools
    assert isinstance(ours, patches._Observing)
    assert play(steps, ours) == play(steps, ours._whole)


def test_it_is_installed_once_and_compares_one_run_only():
    runner.install()
    ours = checks._observe_tools
    runner.install()
    assert checks._observe_tools is ours
    compared = []

    class Counted(tuple):
        def __len__(self):
            compared.append(1)
            return super().__len__()

    class Run:
        conflicted = tools_assigned = False
        initial_tools = Counted((one, two))

    ours([Run() for _ in range(1000)], (one, two))
    assert len(compared) == 1
