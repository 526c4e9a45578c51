"""Agents in a folder: ids from the layout, digests, and rejected files."""

import os

import pytest
from gateway_plugins.folder_discovery.scan import Scanner

SDK = "from agents import Agent\n"


@pytest.fixture
def write(tmp_path):
    def write(path, text=SDK):
        file = tmp_path / "agents" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


@pytest.fixture
def scan(tmp_path):
    reported = []
    scanner = Scanner(tmp_path / "agents", reported.append)

    def scan():
        reported.clear()
        return {found.id: digest for found, digest in scanner.scan().items()}

    scan.reported = reported
    return scan


def test_the_layout_determines_the_ids(write, scan):
    for path in ("SampleAgent/agent.py", "labs/Research/agent.py", "quick.py", "labs/deep/er.py", "Pack/__init__.py"):
        write(path)
    assert list(scan()) == ["labs/deep/er", "labs/Research", "Pack", "quick", "SampleAgent"]


@pytest.mark.parametrize(
    "path",
    [
        ".hidden/agent.py",
        "_shared/agent.py",
        "__pycache__/agent.py",
        ".venv/agent.py",
        "venv/lib.py",
        "tests/test_agent.py",
        "node_modules/x/agent.py",
        "test_something.py",
        "conftest.py",
        "notes.txt",
    ],
)
def test_files_that_are_not_agents_are_skipped(write, scan, path):
    write(path)
    assert scan() == {}
    assert scan.reported == []


@pytest.mark.parametrize("name", ["test", "env", "build"])
def test_an_agent_with_an_ignored_name_is_reported(write, scan, name):
    folder = write(f"labs/{name}/agent.py").parent
    assert scan() == {}
    (error,) = scan.reported
    assert (error.message, error.source) == (f"folders named '{name}' are ignored", str(folder))


def test_a_helper_below_the_top_level_is_not_an_agent(write, scan):
    write("labs/helpers.py", "VALUE = 1\n")
    write("labs/one.py")
    write("Big/agent.py")
    write("Big/part/agent.py")
    assert list(scan()) == ["Big", "labs/one"]


def test_a_missing_folder_has_no_agents(scan):
    assert scan() == {}


@pytest.mark.parametrize("change", ["agent.py", "tools.py", "deep/data.json", "new.txt"])
def test_the_digest_covers_everything_in_the_agents_folder(write, scan, change):
    for path in ("A/agent.py", "A/tools.py", "A/deep/data.json", "B/agent.py"):
        write(path)
    before = scan()
    assert scan() == before
    write(f"A/{change}", SDK + "# changed\n")
    after = scan()
    assert after["A"] != before["A"]
    assert after["B"] == before["B"]


def test_touching_a_file_does_not_change_the_digest(write, scan):
    file = write("A/agent.py")
    before = scan()
    os.utime(file, (1, 1))
    assert scan() == before


def test_caches_do_not_change_the_digest(write, scan):
    write("A/agent.py")
    before = scan()
    write("A/__pycache__/agent.pyc", "x")
    write("A/.agent.py.swp", "x")
    assert scan() == before


def test_a_shared_helper_changes_the_agents_that_mention_it(write, scan):
    write("_shared/text.py", "x = 1\n")
    write("User/agent.py", "from _shared.text import x\n" + SDK)
    write("Other/agent.py")
    before = scan()
    write("_shared/text.py", "x = 2\n")
    after = scan()
    assert after["User"] != before["User"]
    assert after["Other"] == before["Other"]


def test_links_to_targets_outside_the_folder_are_rejected(write, scan, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "agent.py").write_text(SDK)
    inside = write("Real/agent.py").parent
    (inside.parent / "Link").symlink_to(outside)
    (inside.parent / "file.py").symlink_to(outside / "agent.py")
    (inside.parent / "Same").symlink_to(inside)
    assert list(scan()) == ["Real", "Same"]
    assert [error.message for error in scan.reported] == ["symbolic link to a target outside the folder"] * 2


def test_unusual_files_are_reported_and_do_not_block(write, scan):
    write("Good/agent.py")
    folder = write("Pipe/x.txt").parent
    os.mkfifo(folder / "agent.py")
    write("Huge/agent.py", "#" * (10 * 1024 * 1024 + 1))
    assert list(scan()) == ["Good"]
    assert {error.message.split(" than")[0] for error in scan.reported} == {"not a regular file", "larger"}


def test_a_package_file_at_the_top_level_is_reported(write, scan):
    write("__init__.py", "")
    write("A/agent.py")
    assert list(scan()) == ["A"]
    assert "shadow the SDK's package" in scan.reported[0].message


@pytest.mark.parametrize(
    "statement", ["from ..plans import x", "import plans", "from .. import (\n    more,\n    plans)"]
)
def test_a_module_above_the_agents_folder_changes_the_agents_that_import_it(write, scan, statement):
    write("proj/one/agent.py", SDK + statement)
    write("proj/two/agent.py")
    plans, deeper = write("proj/plans.py", "from . import deeper"), write("proj/deeper.py", "x = 1")
    before = scan()
    for file in plans, deeper:
        file.write_text(f"{file.read_text()}\n# changed")
        after = scan()
        assert {agent for agent in after if after[agent] != before[agent]} == {"proj/one"}
        before = after


def test_a_link_to_a_folder_above_it_adds_no_agents(write, scan, tmp_path):
    write("One/agent.py")
    write("labs/Two/agent.py")
    root = tmp_path / "agents"
    for link, target in (
        ("loop", root),
        ("labs/loop", root),
        ("labs/dot", root / "labs"),
        ("One/loop", root),
        ("pair/a/link", root / "pair/b"),
        ("pair/b/link", root / "pair/a"),
    ):
        (root / link).parent.mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(target, target_is_directory=True)
    assert list(scan()) == ["labs/Two", "One"]
