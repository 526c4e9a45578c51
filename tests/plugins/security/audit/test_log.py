"""The audit log records every decision once, and verification detects changes."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import stat
from collections import deque

import pytest
from click.testing import CliRunner
from gateway_plugins.security.audit import writer
from gateway_plugins.security.audit.command import verify_command
from gateway_plugins.security.audit.file import AuditFile
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.audit.verify import verify
from gateway_plugins.security.settings import AuditSettings
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway_core import ConfigError, Decision, DecisionMade, Principal, UnavailableError

MADE = DecisionMade(
    "req_1",
    Principal("ann", key="agw_ab12cd34"),
    "agent",
    "labs/Research",
    Decision(True, "key", "labs/*"),
    0.0000421,
    agent_id=None,
)


def audit(folder, *, reported=None, **given):
    reported = [] if reported is None else reported
    return AuditLog(AuditSettings(**given), folder, reported.append)


def records(folder, name="audit.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


async def write(folder, count, **given):
    async with audit(folder, **given) as log:
        for number in range(count):
            log.event("test", number=number)
            if number % 5 == 4:
                await log.settled()


# Records


async def test_a_decision_is_recorded_with_all_fields(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    async with audit(tmp_path) as log:
        log.decision(MADE)
    [record] = records(tmp_path)
    assert record.pop("ts") > 1.7e9
    assert len(record.pop("hash")) == 64
    assert record == {
        "seq": 1,
        "event": "agent.security.decision",
        "request_id": "req_1",
        "principal": "ann",
        "key": "agw_ab12cd34",
        "kind": "agent",
        "subject": "labs/Research",
        "agent": None,
        "namespace": "labs",
        "allowed": True,
        "source": "key",
        "pattern": "labs/*",
        "override": None,
        "latency_us": 42.1,
    }
    [line] = [line for line in caplog.records if line.message == "agent.security.decision"]
    assert (line.principal, line.allowed, line.subject, line.override) == ("ann", True, "labs/Research", None)


@pytest.mark.parametrize(
    ("kind", "subject", "agent", "namespace"),
    [
        ("agent", "Sample", None, "default"),
        ("tool", "search", "labs/deep/A", "labs/deep"),
        ("module", "labs/A", None, "labs"),
        ("admin", "/admin/reload", None, None),
    ],
)
async def test_the_namespace_is_recorded(tmp_path, kind, subject, agent, namespace):
    async with audit(tmp_path) as log:
        log.decision(DecisionMade("r", Principal("a"), kind, subject, Decision(False, "none"), 0.0, agent_id=agent))
    [record] = records(tmp_path)
    assert (record["namespace"], record["allowed"]) == (namespace, False)


async def test_reserved_log_fields_and_lone_surrogates_are_recorded(tmp_path):
    async with audit(tmp_path) as log:
        log.event("odd", created=1.0, name="x", message="m", text="half \ud800 a character")
        log.event("next")
    odd, following = records(tmp_path)
    assert "ud800" in odd["text"]
    assert following["event"] == "next"
    assert verify(tmp_path / "audit.jsonl").ok


async def test_without_a_folder_it_only_logs(caplog):
    caplog.set_level(logging.INFO)
    async with audit(None, on_full="refuse") as log:
        log.decision(MADE)
        await log.settled()
        log.check()
        assert log.path is None
    assert "agent.security.decision" in caplog.text


# Files


async def test_only_the_gateways_user_can_read_the_files(tmp_path):
    (tmp_path / "audit.jsonl").touch(0o644)
    await write(tmp_path, 3)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


async def test_records_are_complete_and_ordered_across_restarts_and_rotation(tmp_path):
    for _ in range(3):
        await write(tmp_path, 40, max_size=2000)
    report = verify(tmp_path / "audit.jsonl")
    assert report.ok, report.problems
    assert not report.notes
    assert len(report.files) > 3
    numbers = [r["number"] for name in report.files for r in records(tmp_path, name) if r["event"] == "test"]
    assert numbers == [*range(40)] * 3
    assert all((tmp_path / name).stat().st_size <= 2000 for name in report.files)


async def test_old_files_are_removed_and_the_removal_is_recorded(tmp_path):
    await write(tmp_path, 100, max_size=2000, keep=2)
    report = verify(tmp_path / "audit.jsonl")
    assert len(report.files) == 3
    assert report.ok, report.problems
    assert "were removed by the gateway" in report.notes[0]
    (tmp_path / report.files[0]).unlink()
    report = verify(tmp_path / "audit.jsonl")
    assert [p.text for p in report.problems] == [f"records 1 to {report.first - 1} are missing"]


@pytest.mark.parametrize(("fsync", "synced"), [("always", 2), ("admin", 1), ("never", 0)])
async def test_fsync_setting(tmp_path, monkeypatch, fsync, synced):
    forced = []
    from gateway_plugins.security.audit import file

    real = file._sync
    monkeypatch.setattr(file, "_sync", lambda fd: (forced.append(fd), real(fd)))
    async with audit(tmp_path, fsync=fsync) as log:
        log.event("ordinary")
        await log.settled()
        log.event("change", admin=True)
        await log.settled()
        assert len(forced) == synced


async def test_two_gateways_in_one_folder_write_separate_chains(tmp_path):
    async with audit(tmp_path) as first, audit(tmp_path) as second:
        first.event("one")
        second.event("two")
    assert [records(tmp_path, name)[0]["event"] for name in ("audit.jsonl", "audit-2.jsonl")] == ["one", "two"]
    assert verify(tmp_path / "audit.jsonl").ok
    assert verify(tmp_path / "audit-2.jsonl").ok


async def test_a_missing_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be opened"):
        async with audit(tmp_path / "none"):
            pass


# A full disk


@pytest.mark.parametrize("on_full", ["serve", "refuse"])
async def test_a_full_disk_is_reported_and_on_full_decides(tmp_path, caplog, on_full):
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    reported = []
    async with audit(tmp_path, on_full=on_full, reported=reported) as log:
        log.check()
        log.event("lost?")
        with pytest.raises(UnavailableError):
            await log.settled()
        assert log.failed
        if on_full == "refuse":
            with pytest.raises(UnavailableError) as refused:
                log.check()
            assert (refused.value.status, refused.value.code) == (503, "audit_unavailable")
        else:
            log.check()
        with pytest.raises(UnavailableError):
            await log.settled()  # changes are refused with either setting
    assert [error.code for error in reported] == ["audit_unavailable"]
    assert "No space left" in caplog.text
    assert os.stat("/dev/full").st_mode & 0o777 == 0o666


async def test_pending_records_are_written_when_the_disk_has_space_again(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.01)
    link = tmp_path / "audit.jsonl"
    link.symlink_to("/dev/full")
    async with audit(tmp_path) as log:
        log.event("waits", number=1)
        with pytest.raises(UnavailableError):
            await log.settled()
        full, real = os.open("/dev/full", os.O_WRONLY), os.open(tmp_path / "real", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(real, log._writer.file._fd)  # the operator frees space
        os.close(full), os.close(real)
        async with asyncio.timeout(10):
            while log.failed:
                await asyncio.sleep(0.01)
        log.event("next", number=2)
        await log.settled()
    assert [r["number"] for r in records(tmp_path, "real")] == [1, 2]


async def test_dropped_records_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_PENDING", 10)
    (tmp_path / "audit.jsonl").symlink_to("/dev/full")
    async with audit(tmp_path) as log:
        for number in range(25):
            log.event("test", number=number)
        with pytest.raises(UnavailableError):
            await log.settled()
        real = os.open(tmp_path / "real", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(real, log._writer.file._fd)
        os.close(real)
        await log.settled()
        log.event("test", number=99)
        await log.settled()
    written = records(tmp_path, "real")
    assert [r.get("number") for r in written] == [*range(10), None, 99]
    assert (written[10]["event"], written[10]["records"]) == ("agent.security.audit.dropped", 15)


@contextlib.contextmanager
def room_for(size):
    """Limit the size of files: writes are truncated, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def opened(folder, **given):
    file = AuditFile(folder, **{"max_size": 1 << 30, "keep": 0, **given}, now=lambda: 1.0)
    file.open()
    return file


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(room=329, truncates=False, reopen=False)
@example(room=329, truncates=False, reopen=True)
@example(room=329, truncates=True, reopen=True)
@given(room=st.integers(200, 900), truncates=st.booleans(), reopen=st.booleans())
def test_a_partially_written_record_is_written_again(tmp_path_factory, room, truncates, reopen):
    folder = tmp_path_factory.mktemp("a")
    file = opened(folder)
    pending = deque(b'{"event":"test","number":%d}' % number for number in range(10))
    with pytest.MonkeyPatch.context() as patch:
        if not truncates:  # as for an append-only file

            def refuse(*_):
                raise PermissionError

            patch.setattr(os, "ftruncate", refuse)
        with room_for(room), pytest.raises(OSError, match="too large"):
            file.append(pending)
    assert pending
    assert verify(folder / "audit.jsonl").ok
    if reopen:
        file.close()
        file = opened(folder)
    file.append(pending)
    file.close()
    report = verify(folder / "audit.jsonl")
    assert report.ok, (report.problems, (folder / "audit.jsonl").read_text())
    lines = (folder / "audit.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines if line.endswith('"}')]
    assert [r["number"] for r in written if r["event"] == "test"] == [*range(10)]


# Verification


def made(folder, count=8):
    file = opened(folder)
    file.append(deque(b'{"event":"test","number":%d}' % number for number in range(count)))
    file.close()
    return folder / "audit.jsonl"


def test_verify_names_each_edited_line(tmp_path):
    path = made(tmp_path)
    whole = path.read_bytes().splitlines(keepends=True)
    for index in range(len(whole)):
        edited = whole.copy()
        edited[index] = edited[index].replace(b'"number":%d' % index, b'"number":77')
        path.write_bytes(b"".join(edited))
        assert [(p.line, p.text) for p in verify(path).problems] == [
            (index + 1, f"record {index + 1} or the one before it was edited")
        ]


def test_verify_names_each_removed_line(tmp_path):
    path = made(tmp_path)
    whole = path.read_bytes().splitlines(keepends=True)
    for index in range(len(whole)):
        path.write_bytes(b"".join(whole[:index] + whole[index + 1 :]))
        [problem] = verify(path).problems
        assert f"record {index + 1} is missing" in problem.text


def test_a_forged_line_is_detected_at_the_next_line(tmp_path):
    from gateway_plugins.security.audit.hash_chain import parse_line, seal

    path = made(tmp_path)
    whole = path.read_bytes().splitlines(keepends=True)
    for index in range(len(whole)):
        before = parse_line(whole[index - 1][:-1]).seal if index else "0" * 64
        forged, _ = seal(b'{"event":"test","number":77}', index + 1, before)
        path.write_bytes(b"".join([*whole[:index], forged, *whole[index + 1 :]]))
        [problem] = verify(path).problems
        assert problem.line == (index + 2 if index + 1 < len(whole) else 0)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_change_is_detected(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("a")
    path = made(folder)
    whole = path.read_bytes().splitlines(keepends=True)
    change = data.draw(st.sampled_from(["byte", "remove", "swap", "repeat", "insert", "cut", "empty"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole.copy()
    if change == "byte":
        position = data.draw(st.integers(0, len(changed[at]) - 2))
        new = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (changed[at][position], 10)))
        changed[at] = changed[at][:position] + bytes([new]) + changed[at][position + 1 :]
    elif change == "remove":
        del changed[at : data.draw(st.integers(at + 1, len(whole)))]
    elif change == "swap":
        other = data.draw(st.integers(0, len(whole) - 1).filter(lambda n: n != at))
        changed[at], changed[other] = changed[other], changed[at]
    elif change == "repeat":
        changed.insert(data.draw(st.integers(0, len(whole))), changed[at])
    elif change == "insert":
        changed.insert(at, data.draw(st.sampled_from([b"\n", b"{}\n", b"x\n", b'{"seq":9}\n', b"\xff\n"])))
    elif change == "cut":
        changed = [b"".join(changed)[: data.draw(st.integers(0, sum(map(len, whole)) - 2))]]
    else:
        changed = []
    path.write_bytes(b"".join(changed))
    assert not verify(path).ok


async def test_records_missing_at_startup_are_reported_permanently(tmp_path):
    await write(tmp_path, 8)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    await write(tmp_path, 2)
    [problem] = verify(path).problems
    assert problem.text == "records 6 to 8 were missing when the gateway started"


async def test_removal_of_the_whole_log_is_detected(tmp_path):
    await write(tmp_path, 8)
    (tmp_path / "audit.jsonl").unlink()
    [problem] = verify(tmp_path / "audit.jsonl").problems
    assert problem.text == "records 1 to 8 are missing at the end"
    await write(tmp_path, 1)
    assert not verify(tmp_path / "audit.jsonl").ok


async def test_a_partial_last_line_is_tolerated_and_the_log_continues(tmp_path):
    path = made(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"seq":9,"event":"te')
    report = verify(path)
    assert report.ok
    assert "partial last record" in report.notes[0]
    await write(tmp_path, 2)
    report = verify(path)
    assert report.ok, report.problems
    assert (report.records, report.last) == (11, 11)


def test_the_hash_is_sha256_over_the_previous_hash_and_the_line(tmp_path):
    import hashlib

    previous = "0" * 64
    for line in made(tmp_path).read_text().splitlines():
        body, _, rest = line.rpartition(',"hash":"')
        previous = hashlib.sha256((previous + body + "}").encode()).hexdigest()
        assert rest == previous + '"}'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command, in a folder whose settings have the state folder `state`."""
    (tmp_path / "state").mkdir()
    (tmp_path / "gateway.toml").write_text('[state]\nfolder = "state"\n')
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(verify_command(), [str(argument) for argument in arguments])


def test_the_command_reports_changes(tmp_path, run):
    path = made(tmp_path / "state")
    good = run()
    assert (good.exit_code, good.output) == (0, "ok: audit.jsonl: 8 records (1 to 8)\n")
    assert run("--config", tmp_path / "gateway.toml").output == run(tmp_path / "state").output == good.output
    path.write_bytes(path.read_bytes().replace(b'"number":3', b'"number":4'))
    bad = run(path)
    assert bad.exit_code == 1
    assert "audit.jsonl:4: record 4 or the one before it was edited" in bad.output
    assert json.loads(run("--json").output)[0]["problems"][0]["line"] == 4
    path.unlink()
    assert run().exit_code == 1


def test_the_command_without_a_log(tmp_path, run):
    assert isinstance(run().exception, ConfigError)
    (tmp_path / "gateway.toml").write_text('[state]\nfolder = ""\n')
    assert isinstance(run().exception, ConfigError)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(rooms=st.lists(st.integers(100, 900), min_size=1, max_size=6), reopens=st.lists(st.booleans(), min_size=6))
def test_repeatedly_interrupted_writes(tmp_path_factory, rooms, reopens):
    """An append-only file on a disk that repeatedly fills up and gets more space."""
    folder = tmp_path_factory.mktemp("a")
    file = opened(folder)
    pending = deque(b'{"event":"test","number":%d}' % number for number in range(10))

    def refuse(*_):
        raise PermissionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        for room, reopen in zip(sorted(rooms), reopens, strict=False):
            with room_for(room), contextlib.suppress(OSError):
                file.append(pending)
            if reopen:
                file.close()
                file = opened(folder)
            assert verify(folder / "audit.jsonl").problems == ()
        file.append(pending)
    file.close()
    report = verify(folder / "audit.jsonl")
    assert report.ok, (report.problems, (folder / "audit.jsonl").read_text())
    lines = (folder / "audit.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines if line.endswith('"}')]
    assert [r["number"] for r in written if r["event"] == "test"] == [*range(10)]


# The head file, and unusable files


@pytest.mark.parametrize("restart", [False, True])
async def test_a_cut_tail_is_found_although_the_head_was_removed(tmp_path, restart):
    await write(tmp_path, 6)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:3]))
    (tmp_path / "audit.head").unlink()
    if restart:
        await write(tmp_path, 2)
    report = verify(file)
    assert not report.ok
    assert "records after 3 may have been removed" in str(report.problems[0])


def make_folder(path):
    path.mkdir()


def make_fifo(path):
    os.mkfifo(path)


def write_huge_number(path):
    path.write_text('{"seq":99999999999999999999,"hash":"x"}')


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.head"])
@pytest.mark.parametrize("spoil", [make_folder, make_fifo])
async def test_a_file_that_cannot_be_used_is_a_configuration_error(tmp_path, name, spoil):
    spoil(tmp_path / name)
    with pytest.raises(ConfigError, match="the audit log cannot be opened"):
        await write(tmp_path, 1)


async def test_a_malformed_head_counts_as_missing(tmp_path):
    await write(tmp_path, 2)
    write_huge_number(tmp_path / "audit.head")
    await write(tmp_path, 1)
    assert "records after 2 may have been removed" in str(verify(tmp_path / "audit.jsonl").problems[0])
