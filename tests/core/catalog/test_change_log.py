"""A reload logs one line for each change, and nothing if nothing changed."""

import asyncio
import logging
import re

import pytest

from gateway_core.testing import gateway_in_memory

TOOL = "@function_tool\ndef {name}() -> str:\n    '''Look.'''\n    return ''\n"
AGENT = "from agents import Agent, function_tool\n{tools}agent = Agent(name='a', tools=[{names}])\n"
WORKFLOW = "async def run_workflow(text):\n    return text\n"


def agent(*names: str) -> str:
    return AGENT.format(tools="".join(TOOL.format(name=name) for name in names), names=", ".join(names))


@pytest.fixture
def lines(caplog):
    """Returns the lines since the last call, without the load times."""
    caplog.set_level(logging.INFO)

    def take(name: str = "change_log") -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name.endswith(name)]
        caplog.clear()
        return [re.sub(r" in \d+(\.\d\d s| ms)$", " in TIME", line) for line in found]

    return take


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (agent(), agent("one", "two"), "reloaded A (2 tools) in TIME"),
        (agent("one"), agent("two"), "reloaded A (1 tool) in TIME"),
        (agent("one"), WORKFLOW, "reloaded A in TIME"),
        (None, agent("one"), "added A (1 tool) in TIME"),
        (agent("one"), None, "removed A"),
        ("(", None, "removed A"),
        ("(", agent(), "reloaded A (0 tools) in TIME"),
        (agent(), agent(), None),
        (agent("one"), "(", None),  # announced as an error
    ],
)
async def test_a_change_is_one_line(tmp_path, lines, before, after, line):
    file = tmp_path / "A" / "agent.py"
    file.parent.mkdir()

    def write(text):
        file.unlink() if text is None else file.write_text(text)

    if before is not None:
        write(before)
    async with gateway_in_memory(folder=tmp_path) as g:
        assert lines() == []  # the banner lists the agents that exist at the start
        write(after)
        await g.gateway.reload()
        assert lines() == ([line] if line else [])
        await g.gateway.reload()
        assert lines() == []


async def test_a_broken_agent_is_one_line_with_its_cure(tmp_path, lines):
    (tmp_path / "A.py").write_text(agent())
    async with gateway_in_memory(folder=tmp_path) as g:
        (tmp_path / "A.py").write_text("import no_such_module_xyz\n")
        for _ in range(2):
            await g.gateway.reload()
        [line] = lines("gateway")
        assert "A.py:1: the module 'no_such_module_xyz' is not installed (" in line
        (tmp_path / "A.py").write_text(agent())
        await g.gateway.reload()
        assert lines() == ["A works again"]


async def test_new_warnings_of_an_agent_are_logged(tmp_path, lines):
    optional = "from gateway_core import use_gateway_tool\n"
    (tmp_path / "A.py").write_text(agent())
    async with gateway_in_memory(folder=tmp_path) as g:
        source = optional + agent("one").replace("[one]", "[one, use_gateway_tool('nope', optional=True)]")
        for text in (source, source + "# edited\n"):
            (tmp_path / "A.py").write_text(text)
            await g.gateway.reload()
        reloaded = "reloaded A (2 tools) in TIME"
        warning = "A: the optional gateway tool 'nope' does not exist; the agent runs without it"
        assert lines() == [reloaded, warning, reloaded]


async def test_changes_of_gateway_tools_are_logged(tmp_path, lines):
    (tmp_path / "agents").mkdir()
    (tmp_path / "tools").mkdir()
    file = tmp_path / "tools" / "words.py"
    tool = "def {name}(text: str) -> str:\n    '''{doc}'''\n    return text\n"
    config = {"plugins": {"gateway_tools": {"path": str(tmp_path / "tools")}}}
    async with gateway_in_memory(folder=tmp_path / "agents", config=config) as g:
        steps = {
            tool.format(name="one", doc="One.") + tool.format(name="two", doc="Two."): ["added gateway tools one, two"],
            tool.format(name="one", doc="Other."): ["reloaded gateway tool one", "removed gateway tool two"],
        }
        for text, expected in steps.items():
            file.write_text(text)
            await g.gateway.reload()
            assert lines() == expected


async def test_a_slow_reload_is_logged_while_it_loads(tmp_path, lines, monkeypatch, caplog):
    monkeypatch.setattr("gateway_core.catalog.builder.SLOW_SECONDS", 0.05)
    (tmp_path / "A.py").write_text(agent())
    async with gateway_in_memory(folder=tmp_path) as g:
        await g.gateway.reload()
        assert lines("builder") == []
        go = tmp_path / "go.txt"
        wait = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
        (tmp_path / "A.py").write_text(wait + agent("one"))
        reload = asyncio.create_task(g.gateway.reload())
        async with asyncio.timeout(30):
            while not (found := lines("builder")):
                await asyncio.sleep(0.01)
        assert found == ["still loading: A"]
        go.touch()
        await reload
        assert lines() == ["reloaded A (1 tool) in TIME"]


async def test_log_lines_keep_no_replaced_version_alive(tmp_path):
    import gc
    import weakref

    (tmp_path / "A.py").write_text(agent())
    async with gateway_in_memory(folder=tmp_path) as g:
        old = weakref.ref(g.gateway.catalog.agents["A"])
        for name in ("one", "two"):
            (tmp_path / "A.py").write_text(agent(name))
            await g.gateway.reload()
            gc.collect()
            assert old() is None
            old = weakref.ref(g.gateway.catalog.agents["A"])
