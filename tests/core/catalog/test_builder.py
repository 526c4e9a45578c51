"""Discovery, loading and reloading of agents; a broken agent affects no other agent and not its last good version."""

import asyncio
import gc
import os
import sys

import openai
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
        ("raise EOFError", "move this statement under `if __name__"),
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


@pytest.mark.parametrize("exporting", ["", '"""A package."""\n__version__ = "1"\n', "from . import helpers\n"])
async def test_an_init_file_beside_modules_with_agents(tmp_path, exporting):
    package = tmp_path / "Pack"
    (package / "sub").mkdir(parents=True)
    (package / "__init__.py").write_text(exporting)
    (package / "helpers.py").write_text("from agents import function_tool\n")
    (package / "writer.py").write_text("from agents import Agent\nwriter = Agent(name='w')\n")
    (package / "sub" / "flow.py").write_text(
        "import agents\nfirst = agents.Agent(name='f')\nmain_agent: object = agents.Agent[str](name='m')\n"
    )
    async with gateway_in_memory(folder=tmp_path) as g:
        hint = g.gateway.catalog.broken["Pack"].error.hint
        assert "these files have agents: sub/flow.py, writer.py; " in hint
        assert "write `from .sub.flow import main_agent` into __init__.py, or delete __init__.py" in hint
        (package / "__init__.py").write_text("from .sub.flow import main_agent\n")
        await g.gateway.reload()
        assert g.gateway.catalog.agents["Pack"].runnable.agent.name == "m"
        (package / "__init__.py").unlink()
        await g.gateway.reload()
        assert {*g.gateway.catalog.agents} == {"Pack/sub/flow", "Pack/writer"}


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
    async with gateway_in_memory(folder=folder, config={"catalog": {"load_timeout": "3s"}}) as g:
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
        place = "the command line: [agents.Onne]"
        assert (error.code, error.source, error.hint) == ("no_such_agent", place, "did you mean 'One'?")
        (folder / "One").rename(folder / "Onne")
        await g.gateway.reload()
        (folder / "Onne").rename(folder / "One")
        await g.gateway.reload()
        assert [error.source for error in errors] == [place] * 2


TIE = "from agents import Agent\none = Agent(name='first')\ntwo = Agent(name='second')\n"


async def test_several_agents_of_a_module_come_and_go_with_its_versions(folder):
    async with gateway_in_memory(folder=folder) as g:
        (folder / "One" / "agent.py").write_text(TIE)
        catalog = await g.gateway.reload()
        assert list(catalog.agents) == ["One/one", "One/two", "Two"]
        assert [catalog.agents[name].export for name in ("One/one", "One/two")] == ["one", "two"]
        assert catalog.resolve("one/TWO") == "One/two"
        assert (await g.gateway.reload()) is catalog, "unchanged modules are not loaded again"
        again = await g.gateway.reload("One/two")
        assert again.agents["One/one"] is not catalog.agents["One/one"], "they are loaded together"
        (folder / "One" / "agent.py").write_text("boom")
        broken = await g.gateway.reload()
        assert list(broken.agents) == ["One/one", "One/two", "Two"]
        states = {agent["id"]: agent["state"] for agent in (await g.http.get("/admin/agents")).json()["agents"]}
        assert states == {"One/one": "stale", "One/two": "stale", "Two": "ok"}
        (folder / "One" / "agent.py").write_text(GOOD.format(name="One"))
        catalog = await g.gateway.reload()
        assert list(catalog.agents) == ["One", "Two"]
        assert catalog.broken == {}


async def test_a_folders_agent_takes_precedence_over_a_modules_variable(tmp_path):
    (tmp_path / "Team.py").write_text(TIE)
    (tmp_path / "Team" / "two").mkdir(parents=True)
    (tmp_path / "Team" / "two" / "agent.py").write_text(GOOD.format(name="of the folder"))
    errors = []
    async with gateway_in_memory(folder=tmp_path, plugins=recording(errors)) as g:
        catalog = g.gateway.catalog
        assert sorted(catalog.agents) == ["Team/one", "Team/two"]
        assert catalog.agents["Team/two"].runnable.agent.name == "of the folder"
        [error] = errors
        assert isinstance(error, DiscoveryError)
        assert "'Team/two' is already used by" in error.message
        await g.gateway.reload()
        assert errors == [error], "reported once"


async def test_names_that_differ_only_in_case_or_are_invalid_are_reported(tmp_path):
    source = TIE + "ONE = Agent(name='third')\nélan = Agent(name='fourth')\n"
    (tmp_path / "Team.py").write_text(source, encoding="utf-8")
    errors = []
    async with gateway_in_memory(folder=tmp_path, plugins=recording(errors)) as g:
        agents = g.gateway.catalog.agents
        assert list(agents) == ["Team/one", "Team/two"]
        assert "élan is not served" in " ".join(agents["Team/one"].warnings)
        assert ["'Team/ONE' is already used by" in error.message for error in errors] == [True]


async def test_the_resources_of_several_agents_are_held_until_the_last_is_released(tmp_path):
    log = tmp_path / "log"
    (tmp_path / "Team.py").write_text(
        TIE + f"from pathlib import Path\ndef setup():\n    Path({str(log)!r}).write_text('set up')\n"
        f"def teardown():\n    Path({str(log)!r}).write_text('torn down')\n"
    )
    async with gateway_in_memory(folder=tmp_path) as g:
        kept = g.gateway.catalog.agents["Team/one"]
        assert log.read_text() == "set up"
        (tmp_path / "Team.py").write_text(GOOD.format(name="Team"))
        await g.gateway.reload()
        gc.collect()
        await g.gateway.reload()
        assert log.read_text() == "set up"
        del kept
        gc.collect()
        async with asyncio.timeout(10):
            while log.read_text() != "torn down":
                await asyncio.sleep(0.01)


async def test_settings_of_one_of_several_agents_are_its_own(tmp_path):
    (tmp_path / "Team.py").write_text(TIE)
    config = {"agents": {"Team/two": {"model": "other"}}}
    errors = []
    async with gateway_in_memory(folder=tmp_path, config=config, plugins=recording(errors)) as g:
        assert errors == []
        assert g.gateway.facts("Team/two")["model"] == "other"
        assert g.gateway.facts("Team/one")["model"] is None


async def test_a_new_agent_is_loading_during_a_reload(folder):
    text = f"import pathlib, time\nwhile not pathlib.Path({str(folder / 'gate')!r}).exists():\n    time.sleep(0.01)\n"
    async with gateway_in_memory(folder=folder) as g:
        (folder / "New.py").write_text(text + GOOD.format(name="New"))
        (folder / "One" / "agent.py").write_text("nothing")
        reloading = asyncio.create_task(g.gateway.reload())
        async with asyncio.timeout(20):
            while not g.gateway.catalog.loading:
                await asyncio.sleep(0.01)
        assert [*g.gateway.catalog.loading] == ["New"]
        with pytest.raises(openai.InternalServerError) as caught:
            await g.openai.chat.completions.create(model="new", messages=[{"role": "user", "content": "x"}])
        assert caught.value.code == "agent_loading"
        assert (await g.http.get("/readyz")).status_code == 200
        (folder / "gate").touch()
        after = await reloading
        assert (sorted(after.agents), dict(after.loading)) == (["New", "One", "Two"], {})
