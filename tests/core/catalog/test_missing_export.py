"""The diagnosis of a module without an export names the line that creates its agent, and each cure works."""

import re

import pytest

from gateway_core.testing import gateway_in_memory, script

IMPORTS = "import sys\nfrom agents import Agent, Runner\nfrom agents.mcp import MCPServerStdio\n\n"
TWO_TEXTS = """
async def main():
    agent = Agent(name="A")
    print((await Runner.run(agent, "one")).final_output)
    print((await Runner.run(agent, "two")).final_output)
"""
COMMAND_LINE = """
async def main():
    agent = Agent(name="A")
    print((await Runner.run(agent, sys.argv[1])).final_output)
"""
CLASS = """
class Manager:
    def __init__(self):
        self.agent = Agent(name="A")

    async def run(self, query):
        return (await Runner.run(self.agent, query)).final_output
"""
BLOCK = """
if __name__ == "__main__":
    agent = Agent(name="A")
    print(Runner.run_sync(agent, "one").final_output)
    print(Runner.run_sync(agent, "two").final_output)
"""
MOVED_BLOCK = (
    'move the block into a function `main()`, and set [agents."X.v1"] entry = "main", '
    "or move it to module level, or return it from `build_agent()`"
)
WITH_MODEL = """
def create(model):
    return Agent(name="A", model=model)
"""
SERVER = """
async def run(server):
    agent = Agent(name="A", mcp_servers=[server])
    print((await Runner.run(agent, "one")).final_output)
    print((await Runner.run(agent, "two")).final_output)


async def main():
    async with MCPServerStdio(params={"command": "x"}) as server:
        await run(server)
"""


@pytest.fixture
def load(tmp_path):
    def load(source, entry=None):
        (tmp_path / "X.v1.py").write_text(IMPORTS + source)
        config = {"agents": {"X.v1": {"entry": entry}}} if entry else {}
        return gateway_in_memory(folder=tmp_path, model=script("hello", "again"), config=config)

    return load


@pytest.mark.parametrize(
    ("source", "line", "message", "cures"),
    [
        (
            TWO_TEXTS,
            7,
            "inside main(); main() starts a further run with its own text (line 9)",
            'set [agents."X.v1"] entry = "main", or move it to module level, or return it from `build_agent()`',
        ),
        (
            COMMAND_LINE,
            7,
            "inside main(); main() reads the command line",
            "move it to module level, or return it from `build_agent()`",
        ),
        (
            CLASS,
            8,
            "inside Manager.__init__()",
            'set [agents."X.v1"] entry = "Manager.run", or move it to module level, or return it from `build_agent()`',
        ),
        (
            BLOCK,
            7,
            "under `if __name__ == '__main__':`",
            MOVED_BLOCK,
        ),
        (WITH_MODEL, 7, "inside create()", "move it to module level, or return it from `build_agent()`"),
    ],
)
async def test_the_diagnosis_names_the_line_and_the_cures(load, source, line, message, cures):
    async with load(source) as g:
        error = g.gateway.catalog.broken["X.v1"].error
        assert (error.message, error.line, error.hint) == (f"`Agent(…)` is created {message}", line, cures)
        assert "Agent(" in error.source_line
        assert f"X.v1.py:{line}: " in str(error)


async def test_an_agent_with_a_server_is_moved_to_module_level_with_it(load):
    async with load(SERVER) as g:
        error = g.gateway.catalog.broken["X.v1"].error
        assert error.line == 7
        assert error.hint == (
            'set [agents."X.v1"] entry = "main", or create the server and the agent at module level, and pass the '
            "server in `mcp_servers=`"
        )


@pytest.mark.parametrize(
    ("source", "answer"),
    [(TWO_TEXTS, "again"), (CLASS, "hello"), (BLOCK.replace('if __name__ == "__main__":', "def main():"), "again")],
)
async def test_the_suggested_entry_works(load, source, answer):
    entry = "Manager.run" if source is CLASS else "main"
    async with load(source, entry) as g:
        messages = [{"role": "user", "content": "hi"}]
        completion = await g.openai.chat.completions.create(model="X.v1", messages=messages)
        assert completion.choices[0].message.content == answer


@pytest.mark.parametrize("source", [TWO_TEXTS, COMMAND_LINE, CLASS, BLOCK])
@pytest.mark.parametrize("cure", ['agent = Agent(name="A")\n', 'def build_agent():\n    return Agent(name="A")\n'])
async def test_the_suggested_edits_work(load, source, cure):
    moved = re.sub(r'Agent\(name="A"\)', "None", source)
    async with load(cure + moved) as g:
        assert g.gateway.catalog.agents["X.v1"].runnable.agent.name == "A"


@pytest.mark.parametrize(
    "source",
    [
        "def create_agent():\n    return Agent(name='A')\n",
        "async def get():\n    agent = Agent(name='A')\n    return agent\n",
        "def create_agent(model=None):\n    return Agent(name='A', model=model)\n\n\nasync def main(key):\n    pass\n",
    ],
)
async def test_the_only_function_that_returns_an_agent_is_a_factory(load, source):
    async with load(source) as g:
        assert g.gateway.catalog.agents["X.v1"].runnable.agent.name == "A"


async def test_a_main_function_that_also_runs_another_agent_is_noted(load):
    main = """
async def main():
    first = await Runner.run(agent, "own text")
    await Runner.run(reviewer, first.final_output)
"""
    async with load('agent = Agent(name="A")\nreviewer = Agent(name="R")\n' + main) as g:
        served = g.gateway.catalog.agents["X.v1"]
        assert served.export == "agent"
        assert served.warnings == (
            'main() also runs reviewer, but only agent is served; set [agents."X.v1"] entry = "main" to serve main()',
        )
    async with load('agent = Agent(name="A")\nreviewer = Agent(name="R")\n' + main, "main") as g:
        assert g.gateway.catalog.agents["X.v1"].export == "main()"
