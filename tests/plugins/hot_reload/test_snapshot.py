"""Snapshots and their differences, and the folders to watch."""

import os
from pathlib import Path

import pytest
from gateway_plugins.hot_reload.snapshot import differing, is_ignored, take_snapshot
from gateway_plugins.hot_reload.watch_targets import silent_file_system, watch_targets

from gateway_core import is_ignored_file

PASSING = [
    ".agent.py.swp",
    "4913",
    "agent.py~",
    "#agent.py#",
    ".git",
    "agent.py.tmp",
    "run.log",
    "memory.db",
    "memory.sqlite3-wal",
    "x.db-journal",
    "tools.cpython-311.pyc",
    "agent.py___jb_tmp___",
]


@pytest.mark.parametrize("name", PASSING)
def test_temporary_files_are_ignored(name):
    assert is_ignored_file(name)
    assert is_ignored(name)


@pytest.mark.parametrize("name", ["agent.py", "tools.py", "words.json", "requirements.txt", "db.py", "log", "temp"])
def test_files_of_an_agent_are_not_ignored(name):
    assert not is_ignored_file(name)
    assert not is_ignored(name)


def test_the_replaced_link_of_a_mounted_config_map_is_a_change(tmp_path):
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "agent.py").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "agent.py").symlink_to("..data/agent.py")
    before = take_snapshot([tmp_path])
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert str(tmp_path / "agent.py") in differing(before, take_snapshot([tmp_path]))


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.write_text("longer than before"),
        lambda file: file.unlink(),
        lambda file: file.chmod(0o600),
        lambda file: (file.with_name("new").write_text(file.read_text()), file.with_name("new").replace(file)),
        lambda file: file.with_name("another").touch(),
        lambda file: file.parent.rename(file.parent.with_name("renamed")),
    ],
    ids=["written", "deleted", "mode", "replaced", "new", "folder renamed"],
)
def test_every_change_is_detected(tmp_path, change):
    file = tmp_path / "root" / "sub" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("text")
    os.utime(file, ns=(1, 1))
    before = take_snapshot([tmp_path / "root"])
    change(file)
    assert differing(before, take_snapshot([tmp_path / "root"]))


def test_caches_broken_links_and_cycles_are_not_changes(tmp_path):
    (tmp_path / "agent.py").write_text("text")
    before = take_snapshot([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "agent.py").write_text("text")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.log").write_text("text")
    assert not differing(before, take_snapshot([tmp_path]))
    (tmp_path / "up").symlink_to(tmp_path)
    assert set(take_snapshot([tmp_path])) - set(before) == {str(tmp_path / "up")}


def by_folder(paths):
    return {(target.folder, target.recursive): target.names for target in watch_targets(paths)}


def test_a_folder_is_watched_recursively_and_by_name_in_its_parent(tmp_path):
    root = tmp_path / "agents"
    root.mkdir()
    assert by_folder([root]) == {(str(root), True): set(), (str(tmp_path), False): {"agents"}}


def test_files_and_missing_paths_are_watched_in_the_nearest_folder(tmp_path):
    (tmp_path / "gateway.toml").touch()
    missing = tmp_path / "some" / "where" / "agents"
    assert by_folder([tmp_path / "gateway.toml", missing]) == {(str(tmp_path), False): {"gateway.toml", "some"}}
    missing.parent.mkdir(parents=True)
    assert by_folder([missing]) == {(str(missing.parent), False): {"agents"}}


def test_a_linked_folder_is_watched_at_the_link_and_the_target(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "agents").symlink_to(tmp_path / "real")
    assert by_folder([tmp_path / "here" / "agents"]) == {
        (str(tmp_path / "real"), True): set(),
        (str(tmp_path / "here"), False): {"agents"},
        (str(tmp_path), False): {"real"},
    }


def test_a_replaced_folder_is_another_target(tmp_path):
    root = tmp_path / "agents"
    root.mkdir()
    before = watch_targets([root])
    root.rename(tmp_path / "old")
    root.mkdir()
    assert watch_targets([root]) != before


MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
22 21 0:40 / /mnt/with\\040space rw shared:1 - nfs4 server:/x rw
23 21 0:41 / /host rw - virtiofs host rw
24 23 0:42 / /host/local rw - tmpfs tmpfs rw
25 21 0:43 / /twice rw - nfs4 server:/y rw
26 21 0:44 / /twice rw - ext4 /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/agents", None),
        ("/mnt/with space/agents", "nfs4"),
        ("/host/agents", "virtiofs"),
        ("/hostile/agents", None),
        ("/host/local/agents", None),
        ("/twice", None),
    ],
)
def test_file_systems_without_events_are_detected(tmp_path, folder, kind):
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert silent_file_system(["/srv", folder], tmp_path / "mountinfo") == kind


def test_without_mountinfo_no_file_system_is_silent(tmp_path):
    assert silent_file_system(["/srv"], tmp_path / "nowhere") is None
    assert silent_file_system([str(Path(__file__).parent)]) is None
