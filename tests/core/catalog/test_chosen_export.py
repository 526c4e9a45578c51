"""The operator's choice of what a module serves, `[agents.NAME] entry`, and the errors for unsupported choices."""

import pytest

from gateway_core.catalog.runnables import AgentRunnable, InputKind, WorkflowRunnable
from gateway_core.testing import gateway_in_memory, script

MODULE = """
import sys
from dataclasses import dataclass

from agents import Agent, Runner, function_tool

triage = Agent(name="triage")
billing = Agent(name="billing")


class Holder:
    def __init__(self):
        self.agent = Agent(name="held")

    async def run(self, text):
        return (await Runner.run(self.agent, text)).final_output

    def answer(self):
        return Runner.run_sync(self.agent, "own text").final_output


class Closed:
    def __init__(self, key):
        self.agent = Agent(name="closed")

    async def run(self, text):
        return await Runner.run(self.agent, text)


@dataclass
class Question:
    text: str


class Server:
    pass


holder = Holder()


def make():
    return Agent(name="made")


async def make_later():
    return Agent(name="made later")


def make_of(key):
    return Agent(name=key)


async def ask(question: Question):
    return (await Runner.run(triage, question.text)).final_output


def ask_plainly(text: str):
    return Runner.run_sync(triage, text).final_output


async def serve_from(server: Server):
    return await Runner.run(triage, "x")


async def conversation(messages):
    return (await Runner.run(triage, messages)).final_output


async def main():
    first = await Runner.run(triage, "own text")
    second = await Runner.run(billing, "own text")
    print(first.final_output, second.final_output)


@function_tool
def tool() -> str:
    return ""
"""


@pytest.fixture
def serve(tmp_path):
    (tmp_path / "Desk").mkdir()
    (tmp_path / "Desk" / "agent.py").write_text(MODULE)
    (tmp_path / "Desk" / "team.py").write_text('from agents import Agent\nwriter = Agent(name="writer")\n')
    (tmp_path / "Desk" / "parts").mkdir()
    (tmp_path / "Desk" / "parts" / "more.py").write_text('from agents import Agent\nreader = Agent(name="reader")\n')

    def serve(entry, *answers):
        return gateway_in_memory(folder=tmp_path, model=script(*answers), config={"agents": {"desk": {"entry": entry}}})

    return serve


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("billing", "billing"),
        ("holder.agent", "held"),
        ("Holder.agent", "held"),
        ("team.writer", "writer"),
        ("parts.more.reader", "reader"),
        ("make", "made"),
        ("make_later", "made later"),
    ],
)
async def test_an_agent_is_chosen(serve, entry, name):
    async with serve(entry) as g:
        assert list(g.gateway.catalog.agents) == ["Desk"]
        served = g.gateway.catalog.agents["Desk"]
        assert isinstance(served.runnable, AgentRunnable)
        assert served.runnable.agent.name == name
        assert served.export.removesuffix("()") == entry


@pytest.mark.parametrize(
    ("entry", "takes", "answer"),
    [
        ("ask", InputKind.TEXT, "hello"),
        ("ask_plainly", InputKind.TEXT, "hello"),
        ("conversation", InputKind.MESSAGES, "hello"),
        ("Holder.run", InputKind.TEXT, "hello"),
        ("holder.run", InputKind.TEXT, "hello"),
        ("Holder.answer", InputKind.SCRIPT, "hello"),
        ("main", InputKind.SCRIPT, "again"),
    ],
)
async def test_a_function_that_runs_agents_is_chosen(serve, entry, takes, answer):
    async with serve(entry, "hello", "again") as g:
        served = g.gateway.catalog.agents["Desk"]
        assert isinstance(served.runnable, WorkflowRunnable)
        assert (served.runnable.takes, served.export) == (takes, f"{entry}()")
        messages = [{"role": "user", "content": "hi"}]
        completion = await g.openai.chat.completions.create(model="Desk", messages=messages)
        assert completion.choices[0].message.content == answer


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("trige", "agent has no attribute 'trige' (did you mean 'triage'? candidates: triage, billing, "),
        ("", "has no attribute '' (known names: Holder.answer, "),
        ("team.nobody", "team has no attribute 'nobody'"),
        ("triage.nothing", "Agent has no attribute 'nothing'"),
        ("nothing.agent", "has no attribute 'nothing'"),
        ("Holder", "it is a class (name one of its methods or attributes: Holder.run, Holder.answer)"),
        ("Closed.run", "Closed() requires key"),
        ("Closed.agent", "Closed has no attribute 'agent'"),
        ("make_of", "the user's text"),
        ("serve_from", "the user's text cannot be passed as its parameter server"),
        ("tool", "it is an object of type FunctionTool"),
        ("sys.exit", "it is an object of type builtin_function_or_method"),
    ],
)
async def test_an_unsupported_choice_is_an_error(serve, entry, problem):
    async with serve(entry) as g:
        assert list(g.gateway.catalog.agents) == []
        error = g.gateway.catalog.broken["Desk"].error
        assert error.code == "export"
        assert f'entry = "{entry}"' in str(error)
        assert problem in str(error)


async def test_a_choice_needs_a_module():
    from agents import Agent

    config = {"agents": {"One": {"entry": "agent"}}}
    async with gateway_in_memory({"One": Agent(name="one")}, model=script(), config=config) as g:
        assert "requires a module" in str(g.gateway.catalog.broken["One"].error)


async def test_agents_in_a_dict_or_a_list_are_served(tmp_path):
    head = "from agents import Agent\n"
    (tmp_path / "Desk.py").write_text(head + "TEAM = {'sales': Agent(name='s'), 'help desk': Agent(name='h')}\n")
    (tmp_path / "Pair.py").write_text(head + "pair = [Agent(name='one'), Agent(name='two')]\n")
    (tmp_path / "Single.py").write_text(head + "only = (Agent(name='single'),)\n")
    (tmp_path / "Chosen.py").write_text(head + "TEAM = {'sales': Agent(name='s'), 'other': Agent(name='o')}\n")
    (tmp_path / "Wrong.py").write_text(head + "TEAM = {'sales': Agent(name='s'), 'other': Agent(name='o')}\n")
    config = {"agents": {"Chosen": {"entry": "TEAM.sales"}, "Wrong": {"entry": "TEAM.sale"}}}
    async with gateway_in_memory(folder=tmp_path, model=script("x", "y"), config=config) as g:
        catalog = g.gateway.catalog
        assert [*catalog.agents] == ["Chosen", "Desk/TEAM.sales", "Pair/pair.0", "Pair/pair.1", "Single"]
        assert catalog.agents["Chosen"].runnable.agent.name == "s"
        assert "TEAM.help desk is not served" in " ".join(catalog.agents["Desk/TEAM.sales"].warnings)
        assert 'set [agents.Pair] entry = "pair.0"' in catalog.agents["Pair/pair.1"].warnings[0]
        assert "TEAM.sales" in catalog.broken["Wrong"].error.hint
        answer = await g.openai.chat.completions.create(
            model="desk/team.sales", messages=[{"role": "user", "content": "hi"}]
        )
        assert answer.choices[0].message.content == "x"
