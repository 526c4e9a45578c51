"""uv finds versions that no single environment can have, and every side of a conflict is named with its line."""

import pytest
from click.testing import CliRunner
from gateway_plugins.requirements.command import deps

from tests.support.wheels import make_wheel


@pytest.fixture
def install(wheels):
    make_wheel(wheels, "tiny", "1.0")
    make_wheel(wheels, "tiny", "2.0")
    make_wheel(wheels, "needs_tiny", "1.0", "tiny<2")
    make_wheel(wheels, "needs_old_pydantic", "1.0", "pydantic<2")

    def install(folder, *arguments):
        return CliRunner().invoke(deps, ["install", "--dry-run", "--agents", str(folder), *arguments])

    return install


@pytest.mark.parametrize("arguments", [[], ["--agent", "One"], ["--agent", "Two"]])
def test_two_agents_in_conflict_are_named_with_their_lines(install, agents, arguments):
    result = install(agents(One="tiny==1\n", Two="# x\nTINY==2\n", Three="click\n"), *arguments)
    assert result.exit_code == 1
    assert "No solution found" in result.stderr
    for expected in (
        "agent One requires tiny==1 (",
        "/One/requirements.txt:1)",
        "agent Two requires TINY==2 (",
        "/Two/requirements.txt:2)",
    ):
        assert expected in result.stderr
    assert "Three" not in result.stderr


def test_an_agent_that_is_not_concerned_can_be_installed_for(install, agents):
    folder = agents(One="tiny==1\n", Two="tiny==2\n", Three="needs-old-pydantic\n", Four="absent\n", Five="click\n")
    assert install(folder, "--agent", "Five").exit_code == 0


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("<2", ">=2", False),
        ("<2", ">1.0", False),
        ("!=1.*", "<2", False),
        ("~=1.0", "!=1.0", False),
        (">=1", "<2", True),
        ("==1", "==1.0", True),
        ("==1.*", "<=1.0", True),
    ],
)
def test_ranges(install, agents, one, other, fits):
    result = install(agents(One=f"tiny{one}\n", Two=f"tiny{other}\n"))
    assert (result.exit_code == 0) is fits, result.output


def test_a_conflict_of_what_packages_require_is_found(install, agents):
    result = install(agents(One="needs-tiny\n", Two="tiny>=2\n"))
    assert result.exit_code == 1
    assert "agent One requires needs-tiny" in result.stderr
    assert "agent Two requires tiny>=2" in result.stderr


def test_constraints_conflict_only_where_the_project_is_required(install, agents):
    folder = agents(One="-c limits.txt\nneeds-tiny\n", Two="-c limits.txt\nneeds-tiny\n")
    (folder / "One" / "limits.txt").write_text("small<1\ntiny<3\n")
    (folder / "Two" / "limits.txt").write_text("small>1\n")
    assert install(folder).exit_code == 0
    (folder / "Two" / "limits.txt").write_text("# x\ntiny>=2\n")
    for arguments in ([], ["--agent", "One"]):
        result = install(folder, *arguments)
        assert result.exit_code == 1
        assert "/Two/limits.txt:2)" in result.stderr


def test_an_agent_cannot_replace_what_the_gateway_requires(install, agents):
    result = install(agents(One="openai<2\n"))
    assert result.exit_code == 1
    assert "the gateway requires openai[aiohttp]" in result.stderr
    assert "agent One requires openai<2 (" in result.stderr


def test_an_agent_cannot_replace_what_the_gateway_requires_indirectly(install, agents):
    result = install(agents(One="needs-old-pydantic\n"))
    assert result.exit_code == 1
    assert "pydantic>=2" in result.stderr
    assert "agent One requires needs-old-pydantic (" in result.stderr


def test_a_package_that_does_not_exist_is_named_with_its_line(install, agents):
    result = install(agents(One="click\n\nno-such-project-here\n"))
    assert result.exit_code == 1
    assert "no-such-project-here was not found" in result.stderr
    assert "/One/requirements.txt:3)" in result.stderr
    assert "agent One requires click" not in result.stderr
