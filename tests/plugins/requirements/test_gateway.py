"""Over a running gateway: who lacks something is kept out with a hint, others are served, and installing is opt-in."""

import sys

import pytest
from gateway_plugins.requirements import Requirements

from gateway_core.errors import LoadError
from gateway_core.testing import gateway_in_memory, script

ASK = [{"role": "user", "content": "hi"}]
AGENT = "from agents import Agent\nagent = Agent(name='x')\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("Good", "Bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text(AGENT)
    (tmp_path / "Good" / "requirements.txt").write_text("attrs\nopenai[aiohttp]\n")
    return tmp_path


def gateway(folder, plugin=Requirements, **settings):
    return gateway_in_memory(
        folder=folder,
        model=script("hello"),
        plugins={"requirements": plugin},
        config={"plugins": {"requirements": settings}},
    )


def with_runner(runner):
    class WithRunner(Requirements):
        def __init__(self, gateway, config):
            super().__init__(gateway, config, runner)

    return WithRunner


def never(command, folder, tell):
    raise AssertionError("nothing may be started")


async def test_an_unmet_requirement_keeps_only_its_agent_out(folder):
    (folder / "Bad" / "agent.py").write_text(f"raise SystemExit('must not be imported')\n{AGENT}")
    (folder / "Bad" / "requirements.txt").write_text("attrs\n\nattrs<1  # old\nno-such-project-here>=2\n")
    async with gateway(folder, with_runner(never)) as g:
        error = g.gateway.catalog.broken["Bad"].error
        assert isinstance(error, LoadError)
        assert (error.code, error.line, error.source_line) == ("dependency", 3, "attrs<1  # old")
        assert error.source == str(folder / "Bad" / "requirements.txt")
        assert "attrs<1: conflicts with installed attrs 2" in error.message
        assert "no-such-project-here>=2: missing" in error.message
        assert error.hint == "run: agent-gateway deps install --agent Bad"
        answer = await g.openai.chat.completions.create(model="Good", messages=ASK)
        assert answer.choices[0].message.content == "hello"
        facts = g.gateway.hooks.describe()["requirements"]
    assert facts["declaring"] == 2
    assert list(facts["unmet"]) == ["Bad"]
    assert len(facts["unmet"]["Bad"]) == 2


async def test_a_mended_file_is_served_after_a_reload(folder):
    file = folder / "Bad" / "requirements.txt"
    file.write_text("no-such-project-here\n")
    async with gateway(folder) as g:
        assert list(g.gateway.catalog.agents) == ["Good"]
        file.write_text("attrs\n")
        await g.gateway.reload()
        assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]
        assert g.gateway.hooks.describe()["requirements"]["unmet"] == {}
        file.unlink()
        await g.gateway.reload()
        assert g.gateway.hooks.describe()["requirements"]["declaring"] == 1


async def test_another_python_is_told_with_another_hint(folder):
    (folder / "Bad" / "agent.py").write_text(f'# /// script\n# requires-python = ">=4"\n# ///\n{AGENT}')
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert (error.line, error.hint) == (2, "run the gateway on Python >=4")


async def test_a_malformed_line_is_told_with_its_line(folder):
    (folder / "Bad" / "requirements.txt").write_text("attrs\nattrs >> 1\n")
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert (error.line, error.source_line, error.code) == (2, "attrs >> 1", "dependency")


async def test_lines_that_only_an_installer_minds_do_not_keep_an_agent_out(folder):
    (folder / "Bad" / "requirements.txt").write_text("--extra-index-url https://x.test\nattrs\n-e .\n")
    async with gateway(folder, with_runner(never), auto_install=True) as g:
        assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]


async def test_the_check_can_be_switched_off(folder):
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\n")
    async with gateway(folder, with_runner(never), check=False, auto_install=True) as g:
        assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]


async def test_with_auto_install_what_is_missing_is_installed_before_the_load(folder, tmp_path, monkeypatch, caplog):
    target = tmp_path / "_target"
    target.mkdir()
    monkeypatch.syspath_prepend(str(target))
    (folder / "Bad" / "agent.py").write_text(f"import freshly_installed\n{AGENT}")
    (folder / "Bad" / "requirements.txt").write_text("freshly-installed==1\n")
    started = []

    def runner(command, folder, tell):
        started.append((folder / "requirements.txt").read_text())
        (target / "freshly_installed.py").write_text("")
        info = target / "freshly_installed-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: freshly-installed\nVersion: 1\n")
        return 0

    try:
        async with gateway(folder, with_runner(runner), auto_install=True) as g:
            assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]
    finally:
        sys.modules.pop("freshly_installed", None)
    assert started == ["freshly-installed==1\n"]
    assert "installing for agent Bad: freshly-installed==1" in caplog.text


@pytest.mark.parametrize(
    ("requirements", "told"),
    [
        ("no-such-project-here\n-r /etc/passwd\n", "the option -r"),
        ("openai<2\n", "the gateway itself wants openai"),
        ("attrs==1; python_version < '3'\ncattrs<1\nattrs>=1\ncattrs>1\n", "no version of cattrs"),
    ],
)
async def test_auto_install_starts_nothing_for_a_hostile_or_impossible_file(folder, requirements, told):
    (folder / "Bad" / "requirements.txt").write_text(requirements)
    async with gateway(folder, with_runner(never), auto_install=True) as g:
        error = g.gateway.catalog.broken["Bad"].error
        assert told in error.message
        assert list(g.gateway.catalog.agents) == ["Good"]


async def test_a_failed_auto_install_is_told(folder):
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\n")

    def failing(command, folder, tell):
        tell("no such thing at https://me:canary@index.test/simple")
        return 2

    async with gateway(folder, with_runner(failing), auto_install=True) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert error.message == "the installer ended with exit status 2: no such thing at https://***@index.test/simple"
    assert error.line == 1
