"""With a running gateway: an agent that lacks a dependency is rejected with a hint, and installation is opt-in."""

import sys

import pytest
from gateway_plugins.requirements import Requirements

from gateway_core.errors import LoadError
from gateway_core.testing import gateway_in_memory, script
from tests.support.wheels import make_wheel

ASK = [{"role": "user", "content": "hi"}]
AGENT = "from agents import Agent\nagent = Agent(name='x')\n"


@pytest.fixture
def folder(tmp_path):
    for name in ("Good", "Bad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text(AGENT)
    (tmp_path / "Good" / "requirements.txt").write_text("attrs\nopenai[aiohttp]\n")
    return tmp_path


def gateway(folder, **settings):
    return gateway_in_memory(
        folder=folder,
        model=script("hello"),
        plugins={"requirements": Requirements},
        config={"plugins": {"requirements": settings}},
    )


async def test_an_unmet_requirement_keeps_only_its_agent_out(folder, no_process):
    (folder / "Bad" / "agent.py").write_text(f"raise SystemExit('must not be imported')\n{AGENT}")
    (folder / "Bad" / "requirements.txt").write_text("attrs\n\nattrs<1  # old\nno-such-project-here>=2\n")
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
        assert isinstance(error, LoadError)
        assert (error.code, error.line, error.source_line) == ("dependency", 3, "attrs<1  # old")
        assert error.source == str(folder / "Bad" / "requirements.txt")
        assert "attrs<1: conflicts with installed attrs 2" in error.message
        assert "no-such-project-here>=2: missing" in error.message
        command = f"agent-gateway deps install --agent Bad --agents {folder}"
        assert error.hint == f"fix or remove requirements.txt:3, then run: {command}"
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


async def test_another_python_is_reported_with_another_hint(folder):
    (folder / "Bad" / "agent.py").write_text(f'# /// script\n# requires-python = ">=4"\n# ///\n{AGENT}')
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert (error.line, error.hint) == (2, "run the gateway on Python >=4")


async def test_a_malformed_line_is_a_note_with_its_line(folder):
    file = folder / "Bad" / "requirements.txt"
    file.write_text("attrs\nattrs >> 1\n")
    async with gateway(folder) as g:
        [note] = g.gateway.catalog.agents["Bad"].warnings
    assert note.startswith(f"{file}:2: invalid requirement")


AS_PEOPLE_WRITE = """\
# the SDK
agents
asyncio
sqlite3 ; python_version >= "3.8"
typing  # for older versions
openai-agents==0.0.7
openai>=1.66,<2
attrs>=20  # inline
-r more/base.txt
-e .
./libs/mine
numpy @ file:///croot/numpy_and_numpy_base/work
git+https://example.test/acme/kit.git
--extra-index-url https://wheels.example.test/cpu
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
async def test_requirements_as_people_write_them_are_notes(folder, encoding, no_process):
    text = AS_PEOPLE_WRITE.replace("\n", "\r\n")
    content = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    (folder / "Bad" / "requirements.txt").write_bytes(content)
    (folder / "Bad" / "more").mkdir()
    (folder / "Bad" / "more" / "base.txt").write_text("pydantic\n-r ../requirements.txt\n-r base.txt\n")
    async with gateway(folder) as g:
        assert not g.gateway.catalog.broken, [str(b.error) for b in g.gateway.catalog.broken.values()]
        notes = g.gateway.catalog.agents["Bad"].warnings
    assert "requirements.txt:2: the project 'agents' is not the SDK" in notes[0]
    assert "requirements.txt:3: asyncio is a part of Python (remove the line)" in notes[1]
    assert notes[-1] == "and 6 more lines of this kind"


async def test_a_missing_requirement_in_an_included_file_is_found(folder):
    (folder / "Bad" / "requirements.txt").write_text("-r base.txt\n")
    (folder / "Bad" / "base.txt").write_text("attrs\nno-such-project-here\n")
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert (error.source, error.line) == (str(folder / "Bad" / "base.txt"), 2)


async def test_the_cure_names_the_lines_that_keep_the_command_from_installing(folder):
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\nasyncio\n-e .\nopenai<1\nnumpy=1\n")
    async with gateway(folder) as g:
        error = g.gateway.catalog.broken["Bad"].error
    lines = "requirements.txt:3, requirements.txt:5, requirements.txt:4"
    command = f"agent-gateway deps install --agent Bad --agents {folder}"
    assert error.hint == f"fix or remove {lines}, then run: {command}"


async def test_lines_that_only_an_installer_minds_do_not_keep_an_agent_out(folder, no_process):
    (folder / "Bad" / "requirements.txt").write_text("--extra-index-url https://x.test\nattrs\n-e .\n")
    async with gateway(folder, auto_install=True) as g:
        assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]


async def test_the_check_can_be_switched_off(folder, no_process):
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\n")
    async with gateway(folder, check=False, auto_install=True) as g:
        assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]


async def test_with_auto_install_what_is_missing_is_installed_before_the_load(folder, wheels, environment, caplog):
    make_wheel(wheels, "freshly_installed")
    (folder / "Bad" / "agent.py").write_text(f"import freshly_installed\n{AGENT}")
    (folder / "Bad" / "requirements.txt").write_text("freshly-installed==1\n")
    try:
        async with gateway(folder, auto_install=True) as g:
            assert sorted(g.gateway.catalog.agents) == ["Bad", "Good"]
    finally:
        sys.modules.pop("freshly_installed", None)
    assert "installing for agent Bad: freshly-installed==1: missing" in caplog.text


async def test_auto_install_starts_nothing_for_a_hostile_file(folder, no_process):
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\n-r /etc/passwd\n")
    async with gateway(folder, auto_install=True) as g:
        error = g.gateway.catalog.broken["Bad"].error
        assert (error.line, error.message) == (2, "the file passwd is outside the agent's folder")
        assert list(g.gateway.catalog.agents) == ["Good"]


async def test_auto_install_starts_nothing_on_another_python(folder, no_process):
    (folder / "Bad" / "agent.py").write_text(
        f'# /// script\n# requires-python = ">=4"\n# dependencies = ["absent"]\n# ///\n{AGENT}'
    )
    async with gateway(folder, auto_install=True) as g:
        assert g.gateway.catalog.broken["Bad"].error.hint == "run the gateway on Python >=4"


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ("openai<2\n", "the gateway requires openai[aiohttp]"),
        ("attrs==1; python_version < '3'\ncattrs<1\nattrs>=1\ncattrs>1\n", "requirements.txt:4)"),
        ("agreed>=2\n", "agent Good requires agreed<2 ("),
        ("no-such-project-here\n", "no-such-project-here was not found"),
    ],
)
async def test_auto_install_changes_nothing_for_an_impossible_file(folder, wheels, environment, requirements, expected):
    make_wheel(wheels, "agreed", "1.0")
    make_wheel(wheels, "agreed", "2.0")
    (folder / "Good" / "requirements.txt").write_text("agreed<2\n")
    before = sorted(environment.iterdir())
    async with gateway(folder, auto_install=True) as g:
        (folder / "Bad" / "requirements.txt").write_text(requirements)
        await g.gateway.reload()
        error = g.gateway.catalog.broken["Bad"].error
        assert expected in error.message
        assert error.message.startswith("uv exited with status 1: error: No solution found")
        assert error.source == str(folder / "Bad" / "requirements.txt")
        assert error.hint.endswith(f"run: agent-gateway deps install --agent Bad --agents {folder}")
    assert {path.name for path in {*environment.iterdir()} - {*before}} <= {"agreed.py", "agreed-1.0.dist-info"}


async def test_a_failed_auto_install_is_reported_without_passwords(folder, wheels, monkeypatch):
    monkeypatch.delenv("UV_CONFIG_FILE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:canary@127.0.0.1:9/simple")
    (folder / "Bad" / "requirements.txt").write_text("no-such-project-here\n")
    async with gateway(folder, auto_install=True) as g:
        error = g.gateway.catalog.broken["Bad"].error
    assert error.message.startswith("uv exited with status 2: error: Failed to fetch")
    assert "canary" not in error.message
    assert error.line == 1
