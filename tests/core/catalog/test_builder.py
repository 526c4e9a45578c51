"""Discovery, loading and reloading of agents; a broken agent affects no other agent and not its last good version."""

import asyncio
import gc
import os
import sys

import pytest
from agents import Agent, function_tool

from gateway_core import hookimpl
from gateway_core.errors import DiscoveryError
from gateway_core.testing import gateway_in_memory

GOOD = "from agents import Agent\nagent = Agent(name={name!r})\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("One", "Two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text(GOOD.format(name=name))
    return tmp_path


def recording(errors):
    class Recorder:
        def __init__(self, *_):
            pass

        @hookimpl
        def on_error(self, error):
            errors.append(error)

    return {"recorder": Recorder}


async def test_an_unchanged_agent_is_not_loaded_again(folder):
    async with gateway_in_memory(folder=folder) as g:
        before = g.gateway.catalog
        (folder / "Two" / "agent.py").write_text(GOOD.format(name="Other"))
        after = await g.gateway.reload()
        assert after.agents["One"] is before.agents["One"]
        assert after.agents["Two"] is not before.agents["Two"]
        assert after.generation == before.generation + 1
        assert g.gateway.catalog is after


async def test_a_broken_version_leaves_the_last_good_one(folder):
    errors = []
    async with gateway_in_memory(folder=folder, plugins=recording(errors)) as g:
        good = g.gateway.catalog.agents["One"]
        (folder / "One" / "agent.py").write_text("import agents\n\nagent = nothing\n")
        catalog = await g.gateway.reload()
        assert catalog.agents["One"] is good
        error = catalog.broken["One"].error
        assert (error.line, error.source_line, error.agent_id) == (3, "agent = nothing", "One")
        assert errors == [error]
        await g.gateway.reload()
        assert errors == [error], "the same broken version is not tried again"
        (folder / "One" / "agent.py").write_text(GOOD.format(name="Fixed"))
        catalog = await g.gateway.reload()
        assert catalog.broken == {}
        assert catalog.agents["One"].runnable.agent.name == "Fixed"


async def test_a_package_installed_later_is_found_at_the_next_reload(folder, tmp_path_factory, monkeypatch):
    installed = tmp_path_factory.mktemp("installed")
    monkeypatch.syspath_prepend(str(installed))
    (folder / "One" / "agent.py").write_text("import installed_later_for_test\n" + GOOD.format(name="One"))
    async with gateway_in_memory(folder=folder) as g:
        assert g.gateway.catalog.broken["One"].error.code == "dependency"
        (installed / "installed_later_for_test.py").write_text("")
        assert "One" in (await g.gateway.reload()).agents


async def test_a_deleted_agent_is_removed(folder):
    async with gateway_in_memory(folder=folder) as g:
        (folder / "One" / "agent.py").unlink()
        assert list((await g.gateway.reload()).agents) == ["Two"]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("def", "syntax", "SyntaxError"),
        ("import nowhere_to_be_found", "dependency", "the module 'nowhere_to_be_found' is not installed"),
        ("from os import nothing_like_it", "import", "ImportError"),
        ("from .missing import x", "import", "the agent's folder has no module 'missing'"),
        ("import os\nos.environ['NOT_SET']", "environment", "NOT_SET is not set"),
        ("raise SystemExit(2)", "import", "calls exit()"),
        ("raise KeyboardInterrupt", "import", "KeyboardInterrupt"),
        ("raise BaseExceptionGroup('x', [SystemExit()])", "import", "x"),
        ("x = 1", "export", "the module exports no Agent"),
        ("", "export", "its top level is empty"),
    ],
)
async def test_a_broken_module_affects_no_other_agent(folder, text, code, message):
    (folder / "One" / "agent.py").write_text(text)
    async with gateway_in_memory(folder=folder) as g:
        catalog = g.gateway.catalog
        assert list(catalog.agents) == ["Two"]
        error = catalog.broken["One"].error
        assert error.code == code
        assert message in str(error)
        assert str(folder / "One" / "agent.py") in str(error)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("open('prompt.md')", "relative paths are resolved against the gateway's working directory"),
        ("raise EOFError", "the gateway has no interactive input"),
        ("x = 'caf\xe9'", "save the file as UTF-8"),
        ("import nowhere_to_be_found", "put nowhere_to_be_found.py into the agent's folder"),
        ("x = (", "fix the syntax error"),
        (
            "from agents import Model\nclass M(Model):\n    async def get_response(self, *a, **k): ...\nM()",
            "define `stream_response` to raise NotImplementedError",
        ),
    ],
)
async def test_a_diagnosis_has_a_hint(folder, text, hint):
    (folder / "One" / "agent.py").write_text(text, encoding="latin-1")
    async with gateway_in_memory(folder=folder) as g:
        assert hint in g.gateway.catalog.broken["One"].error.hint


async def test_the_hint_for_a_single_file_with_a_helper_is_to_make_a_folder(tmp_path):
    (tmp_path / "quick.py").write_text("from agents import Agent\nfrom prompts import TEXT\n")
    (tmp_path / "prompts.py").write_text("TEXT = 'x'\n")
    async with gateway_in_memory(folder=tmp_path) as g:
        hint = g.gateway.catalog.broken["quick"].error.hint
        assert "move it to quick/agent.py, and prompts.py to quick/" in hint


async def test_a_circular_import_is_reported_with_the_authors_module_names(folder):
    (folder / "One" / "agent.py").write_text("from .helper import X\nY = 1\n")
    (folder / "One" / "helper.py").write_text("from .agent import Y\nX = 1\n")
    async with gateway_in_memory(folder=folder) as g:
        assert "from partially initialized module 'agent'" in g.gateway.catalog.broken["One"].error.message


async def test_a_syntax_error_shows_the_line_as_it_is_now(folder):
    file = folder / "One" / "agent.py"
    file.write_text("from agents import Agent\nagent = nothing\n")
    async with gateway_in_memory(folder=folder) as g:
        assert g.gateway.catalog.broken["One"].error.source_line == "agent = nothing"
        file.write_text("from agents import Agent\nagent = Agent(\n")
        assert (await g.gateway.reload()).broken["One"].error.source_line == "agent = Agent("


@pytest.mark.parametrize(
    ("text", "message"),
    [("import os\nos._exit(0)", "exit 0"), ("import ctypes\nctypes.string_at(0)", "signal SIGSEGV")],
    ids=["_exit", "segfault"],
)
async def test_a_module_that_ends_the_process_ends_only_its_trial(folder, text, message):
    (folder / "One" / "agent.py").write_text(text)
    async with gateway_in_memory(folder=folder, config={"catalog": {"trial_import": True}}) as g:
        assert list(g.gateway.catalog.agents) == ["Two"]
        assert message in g.gateway.catalog.broken["One"].error.message


async def test_an_import_that_hangs_times_out_and_its_line_is_reported(folder):
    (folder / "One" / "agent.py").write_text("import threading\n\nthreading.Event().wait()")
    async with gateway_in_memory(folder=folder, config={"catalog": {"load_timeout": "200ms"}}) as g:
        error = g.gateway.catalog.broken["One"].error
        assert (error.code, error.line, error.source_line) == ("timeout", 3, "threading.Event().wait()")
        assert list(g.gateway.catalog.agents) == ["Two"]


async def test_of_two_agents_with_one_name_the_first_is_served_and_the_second_is_reported(folder):
    errors = []
    agents = {"one": Agent(name="given")}
    async with gateway_in_memory(agents, folder=folder, plugins=recording(errors)) as g:
        assert set(g.gateway.catalog.agents) == {"One", "Two"}
        assert isinstance(errors[0], DiscoveryError)
        assert "the name 'one' is already used by" in errors[0].message


async def test_an_invalid_model_name_is_rejected():
    errors = []
    async with gateway_in_memory({"a b": Agent(name="x")}, plugins=recording(errors)) as g:
        assert g.gateway.catalog.agents == {}
        assert "'a b' is not a valid model name" in errors[0].message


async def test_a_replaced_version_is_unloaded_when_its_last_run_releases_it(folder):
    before = set(sys.modules)
    async with gateway_in_memory(folder=folder) as g:
        held = g.gateway.catalog.agents["One"]
        ours = [m for m in set(sys.modules) - before if m.startswith("gateway_agent_One_")]
        (folder / "One" / "agent.py").write_text(GOOD.format(name="New"))
        await g.gateway.reload()
        assert set(ours) <= set(sys.modules), "a run may still hold it"
        del held
        gc.collect()
        while set(ours) & set(sys.modules):  # bounded by the test's own time limit
            await asyncio.sleep(0)


async def test_process_wide_changes_of_an_import_are_reverted(folder, monkeypatch):
    from agents import set_default_openai_api
    from agents.models import _openai_shared
    from agents.tracing import get_trace_provider

    set_default_openai_api("responses")
    (folder / "One" / "agent.py").write_text(
        "import os\n"
        "from agents import Agent, set_default_openai_api, set_tracing_disabled, add_trace_processor\n"
        "from agents.tracing.processors import default_processor\n"
        "os.environ['OPENAI_API_KEY'] = 'mine'\n"
        "os.environ['MY_OWN'] = 'kept'\n"
        "set_default_openai_api('chat_completions')\n"
        "set_tracing_disabled(False)\n"
        "add_trace_processor(default_processor())\n"
        "agent = Agent(name='x')\n"
    )
    monkeypatch.delenv("MY_OWN", raising=False)
    async with gateway_in_memory(folder=folder) as g:
        before = os.environ["OPENAI_API_KEY"]
        assert before != "mine"
        assert os.environ.pop("MY_OWN") == "kept"
        assert _openai_shared._use_responses_by_default is True
        assert get_trace_provider()._multi_processor._processors == ()
        warnings = " ".join(g.gateway.catalog.agents["One"].warnings)
        assert "OPENAI_API_KEY" in warnings
        assert "trace processors" in warnings


async def test_tools_shared_by_agents_are_wrapped_once():
    @function_tool
    def shared() -> str:
        """Shared."""
        return ""

    @function_tool
    def extra() -> str:
        """Extra."""
        return ""

    target = Agent(name="target", tools=[shared])
    one, two = Agent(name="one", tools=[extra], handoffs=[target]), Agent(name="two", handoffs=[target])
    seen = []

    class Tools:
        def __init__(self, *_):
            pass

        @hookimpl
        def wrap_tool(self, tool, entry):
            seen.append((entry.id, tool.name))

    async with gateway_in_memory({"One": one, "Two": two}, plugins={"tools": Tools}) as g:
        await g.gateway.reload()
    assert seen == [("One", "extra"), ("One", "shared")]
    assert one.tools == [extra]


async def test_settings_for_an_unknown_agent_are_reported_once(folder):
    errors = []
    config = {"agents": {"TWO": {"model": "m"}, "Onne": {"model": "m"}}}
    async with gateway_in_memory(folder=folder, config=config, plugins=recording(errors)) as g:
        await g.gateway.reload()
        [error] = errors
        assert (error.code, error.source, error.hint) == ("no_such_agent", "[agents.Onne]", "did you mean 'One'?")
        (folder / "One").rename(folder / "Onne")
        await g.gateway.reload()
        (folder / "Onne").rename(folder / "One")
        await g.gateway.reload()
        assert [error.source for error in errors] == ["[agents.Onne]"] * 2
