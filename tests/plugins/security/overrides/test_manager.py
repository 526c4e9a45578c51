"""Overrides allow only their subject, for their principal, until they expire."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest
from attrs import evolve
from gateway_plugins.security.access_query import AccessQuery
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.overrides.grant_request import Grant, parse_grant
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import OverrideSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_core import ConfigError, InvalidRequestError, UnavailableError

GRANT = Grant(kind="agent", pattern="labs/Research", principal="ann", reason="demo", ttl=60.0)
ASKED = AccessQuery("agent", "labs/Research", "ann")


class Times:
    """Two clocks that a test sets."""

    def __init__(self, wall=1_000_000.0, steady=50.0):
        self.wall, self.steady = wall, steady
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def pass_(self, seconds):
        self.wall += seconds
        self.steady += seconds


def store(folder=None, times=None, *, events=None, **settings):
    events = [] if events is None else events
    clock = times.clock if times else None
    return OverrideManager(OverrideSettings(**settings), folder, lambda *event: events.append(event), clock)


async def test_an_override_allows_its_subject_and_is_announced():
    events = []
    async with store(events=events) as overrides:
        assert overrides.deciding(ASKED) is None
        granted = await overrides.grant(GRANT, "root")
        assert overrides.deciding(ASKED) == granted
        assert (granted.reason, granted.granted_by, granted.expires - granted.created) == ("demo", "root", 60.0)
    assert events == [("agent.security.override.created", granted, "root")]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "tool"},
        {"kind": "module"},
        {"kind": "admin"},
        {"subject": "labs/Researcher"},
        {"subject": "labs/Research/Deep"},
        {"subject": "Research"},
        {"principal": "bob"},
        {"principal": "ann2"},
        {"principal": "Ann"},
    ],
)
async def test_an_override_allows_nothing_else(other):
    async with store() as overrides:
        await overrides.grant(GRANT, "root")
        assert overrides.deciding(evolve(ASKED, **other)) is None


async def test_an_override_can_apply_to_one_key():
    async with store() as overrides:
        await overrides.grant(evolve(GRANT, principal="agw_ab12cd34"), "root")
        assert overrides.deciding(evolve(ASKED, key="agw_ab12cd34"))
        assert not overrides.deciding(evolve(ASKED, key="agw_other"))
        assert not overrides.deciding(ASKED)


async def test_a_star_matches_exactly_one_segment():
    async with store() as overrides:
        await overrides.grant(evolve(GRANT, pattern="labs/*"), "root")
        assert overrides.deciding(ASKED)
        assert not overrides.deciding(evolve(ASKED, subject="labs/a/b"))
        assert not overrides.deciding(evolve(ASKED, subject="labsX/a"))


async def test_a_server_tool_matches_by_both_of_its_names_only():
    asked = AccessQuery("tool", "search", "ann", agent_id="X", source="mcp", server="web")
    async with store() as overrides:
        granted = await overrides.grant(evolve(GRANT, kind="tool", pattern="web/search"), "root")
        assert overrides.deciding(asked) == granted
        assert not overrides.deciding(evolve(asked, server="other"))
        assert not overrides.deciding(evolve(asked, server="other", subject="web/search"))
        assert not overrides.deciding(evolve(asked, server=None))
        await overrides.grant(evolve(GRANT, kind="tool", pattern="search"), "root")
        assert overrides.deciding(evolve(asked, server="other"))


async def test_a_tool_pattern_can_have_a_source():
    asked = AccessQuery("tool", "mail/send", "ann", agent_id="X", source="gateway")
    async with store() as overrides:
        granted = await overrides.grant(parse_grant({**GOOD, "kind": "tool", "pattern": "gateway:mail/send"}, "r"), "r")
        assert overrides.deciding(evolve(asked, principal=granted.principal)) == granted
        assert not overrides.deciding(evolve(asked, principal=granted.principal, source="mcp", server="mail"))


async def test_a_top_level_agent_matches_by_both_of_its_names():
    grant = parse_grant({**GOOD, "pattern": "default/Sample"}, "root")
    assert grant.pattern == "Sample"
    async with store() as overrides:
        await overrides.grant(grant, "root")
        assert overrides.deciding(evolve(ASKED, subject="sample"))
        assert overrides.deciding(evolve(ASKED, subject="Default/Sample"))
        assert not overrides.deciding(evolve(ASKED, subject="labs/Sample"))


async def test_a_stored_override_that_is_too_broad_is_ignored(tmp_path, caplog):
    async with store(tmp_path) as overrides:
        await overrides.grant(GRANT, "root")
    other = sqlite3.connect(tmp_path / "overrides.db", isolation_level=None)
    other.execute("UPDATE overrides SET pattern = '**'")
    other.close()
    async with store(tmp_path) as overrides:
        assert overrides.active() == []
    assert "ignoring the stored override" in caplog.text
    assert reasons(tmp_path) == []


async def test_an_override_expires():
    times = Times()
    async with store(times=times) as overrides:
        granted = await overrides.grant(GRANT, "root")
        times.pass_(59.9)
        assert overrides.active()[0] == (granted, pytest.approx(0.1))
        assert overrides.deciding(ASKED)
        times.pass_(0.1)
        assert overrides.deciding(ASKED) is None
        assert overrides.active() == []
        assert await overrides.revoke(granted.id, "root") is None


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9])
async def test_wall_clock_jumps_do_not_affect_a_running_process(jump):
    times = Times()
    async with store(times=times) as overrides:
        await overrides.grant(GRANT, "root")
        times.wall += jump
        times.steady += 59
        assert overrides.deciding(ASKED)
        times.steady += 1
        assert not overrides.deciding(ASKED)


async def test_an_expiry_is_announced_without_any_request(tmp_path):
    ended = asyncio.Event()

    def events(event, override, by):
        if event == "agent.security.override.expired":
            ended.set()

    async with OverrideManager(OverrideSettings(), tmp_path, events) as overrides:
        await overrides.grant(evolve(GRANT, ttl=3600.0, reason="a long one"), "root")
        await overrides.grant(evolve(GRANT, ttl=0.05), "root")
        await asyncio.wait_for(ended.wait(), 10)
        assert [override.reason for override, _ in overrides.active()] == ["a long one"]
    assert reasons(tmp_path) == ["a long one"]


async def test_an_expiry_while_stopped_is_announced_at_startup(tmp_path):
    times, events, ended = Times(), [], asyncio.Event()
    async with store(tmp_path, times) as overrides:
        await overrides.grant(GRANT, "root")
    times.pass_(61)
    later = OverrideManager(OverrideSettings(), tmp_path, lambda e, *_: (events.append(e), ended.set()), times.clock)
    async with later as overrides:
        assert not overrides.deciding(ASKED)
        await asyncio.wait_for(ended.wait(), 10)
    assert events == ["agent.security.override.expired"]
    assert reasons(tmp_path) == []


async def test_a_revocation_takes_effect_immediately_and_permanently(tmp_path):
    events = []
    async with store(tmp_path, events=events) as overrides:
        granted = await overrides.grant(GRANT, "root")
        assert await overrides.revoke(granted.id, "eve") == granted
        assert not overrides.deciding(ASKED)
        assert await overrides.revoke(granted.id, "eve") is None
    assert events[-1] == ("agent.security.override.revoked", granted, "eve")
    async with store(tmp_path) as overrides:
        assert not overrides.deciding(ASKED)


async def test_an_override_keeps_its_remaining_time_after_a_restart(tmp_path):
    times = Times()
    async with store(tmp_path, times) as overrides:
        granted = await overrides.grant(GRANT, "root")
    times.pass_(20)
    times.steady = 3.0  # the machine was rebooted
    async with store(tmp_path, times) as overrides:
        assert overrides.deciding(ASKED) == granted
        assert overrides.active() == [(granted, pytest.approx(40.0))]


@pytest.mark.parametrize("back", [30.0, 3600.0, 1e9])
async def test_setting_the_clock_back_during_a_restart_does_not_extend_the_lifetime(tmp_path, back):
    times = Times()
    async with store(tmp_path, times) as overrides:
        await overrides.grant(GRANT, "root")
    times.wall -= back
    async with store(tmp_path, times) as overrides:
        [(_, left)] = overrides.active()
        assert left == pytest.approx(60.0)


async def test_a_lowered_max_ttl_applies_to_stored_overrides(tmp_path):
    times = Times()
    async with store(tmp_path, times) as overrides:
        await overrides.grant(evolve(GRANT, ttl=3600.0), "root")
    async with store(tmp_path, times, max_ttl=600.0) as overrides:
        [(_, left)] = overrides.active()
        assert left == pytest.approx(600.0)


async def test_default_and_maximum_lifetime():
    async with store() as overrides:
        granted = await overrides.grant(evolve(GRANT, ttl=None), "root")
        assert granted.expires - granted.created == pytest.approx(15 * 60)
        await overrides.grant(evolve(GRANT, ttl=24 * 3600.0), "root")
        with pytest.raises(InvalidRequestError) as refused:
            await overrides.grant(evolve(GRANT, ttl=24 * 3600.0 + 1), "root")
        assert (refused.value.status, refused.value.param) == (422, "ttl_seconds")
        assert len(overrides.active()) == 2


async def test_only_the_gateways_user_can_read_the_database(tmp_path):
    async with store(tmp_path) as overrides:
        await overrides.grant(GRANT, "root")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes) == {"overrides.db", "overrides.db-wal", "overrides.db-shm"}
    assert set(modes.values()) == {0o600}


async def test_an_override_that_cannot_be_stored_is_not_granted(tmp_path):
    async with store(tmp_path) as overrides:
        other = sqlite3.connect(tmp_path / "overrides.db", isolation_level=None)
        other.execute("DROP TABLE overrides")
        other.close()
        with pytest.raises(UnavailableError):
            await overrides.grant(GRANT, "root")
        assert not overrides.deciding(ASKED)


async def test_a_revocation_takes_effect_even_if_the_file_cannot_be_written(tmp_path):
    async with store(tmp_path) as overrides:
        granted = await overrides.grant(GRANT, "root")
        other = sqlite3.connect(tmp_path / "overrides.db", isolation_level=None)
        other.execute("ALTER TABLE overrides RENAME TO gone")
        with pytest.raises(UnavailableError):
            await overrides.revoke(granted.id, "root")
        assert not overrides.deciding(ASKED)
        other.execute("ALTER TABLE gone RENAME TO overrides")
        other.close()
        # The next write also deletes the stale override.
        second = await overrides.grant(evolve(GRANT, reason="second"), "root")
        await overrides.revoke(second.id, "root")
    assert reasons(tmp_path) == []


async def test_a_cancelled_grant_keeps_the_file_and_the_active_overrides_consistent(tmp_path):
    events = []
    async with store(tmp_path, events=events) as overrides:
        asking = asyncio.create_task(overrides.grant(GRANT, "root"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await overrides.grant(evolve(GRANT, reason="next"), "root")
        held = sorted(override.reason for override, _ in overrides.active())
    assert held == sorted(reasons(tmp_path))
    assert len(events) == len(held)


async def test_a_corrupt_database_is_renamed_and_allows_nothing(tmp_path, caplog):
    (tmp_path / "overrides.db").write_bytes(b"this is no database at all, and long enough to be one" * 100)
    async with store(tmp_path) as overrides:
        assert overrides.active() == []
        await overrides.grant(GRANT, "root")
    assert (tmp_path / "overrides.broken").exists()
    assert reasons(tmp_path) == ["demo"]
    assert "overrides are lost" in caplog.text


async def test_a_missing_folder_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot open the database"):
        async with store(tmp_path / "none"):
            pass


async def test_a_failing_announcement_does_not_affect_overrides():
    def broken(_):
        raise RuntimeError("boom")

    async with OverrideManager(OverrideSettings(), None, broken) as overrides:
        granted = await overrides.grant(GRANT, "root")
        assert overrides.deciding(ASKED) == granted
        assert await overrides.revoke(granted.id, "root")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    ttl=st.floats(0.001, 86400),
    asked=st.floats(0, 2e5),
    jumps=st.lists(st.tuples(st.booleans(), st.floats(-1e8, 1e8)), max_size=4),
)
def test_no_clock_change_extends_an_override(tmp_path_factory, ttl, asked, jumps):
    """Restarts and jumps of the wall clock, in any order: in one process, never longer than granted."""
    times = Times()
    folder = tmp_path_factory.mktemp("s")

    async def live():
        async with store(folder, times) as overrides:
            await overrides.grant(evolve(GRANT, ttl=ttl), "root")
        for restart, jump in jumps:
            times.wall += jump
            if not restart:
                continue
            async with store(folder, times) as overrides:
                for _, left in overrides.active():
                    assert 0 < left <= ttl + 1e-3
        async with store(folder, times) as overrides:
            times.steady += asked
            if asked >= ttl + 1e-3:
                assert overrides.deciding(ASKED) is None

    asyncio.run(live())


GOOD = {"kind": "agent", "pattern": "labs/*", "principal": "ann", "reason": "demo", "ttl_seconds": 60}


def test_a_grant_request_is_parsed():
    assert parse_grant(GOOD, "root") == Grant("agent", "labs/*", "ann", "demo", 60.0)
    for_key = {"kind": "tool", "pattern": "search", "key": "agw_ab12cd34", "reason": " why "}
    assert parse_grant(for_key, "root") == Grant("tool", "search", "agw_ab12cd34", "why", None)


@pytest.mark.parametrize(("kind", "whom"), [("agent", "root"), ("tool", "root"), ("module", "gateway")])
def test_the_default_principal_is_the_granter_and_for_modules_the_gateway(kind, whom):
    grant = parse_grant({"kind": kind, "pattern": "a", "reason": "r"}, "root")
    assert grant.principal == whom


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pattern", "**"),
        ("pattern", "labs/**"),
        ("pattern", "**/a"),
        ("pattern", "*"),
        ("pattern", "*/*"),
        ("pattern", "lab*"),
        ("pattern", "default/*"),
        ("pattern", "labs/ a"),
        ("pattern", "labs/a*b"),
        ("pattern", "labs//a"),
        ("pattern", "/labs"),
        ("pattern", "labs/"),
        ("pattern", "../labs"),
        ("pattern", ""),
        ("pattern", "  "),
        ("pattern", None),
        ("pattern", ["labs/a"]),
        ("pattern", "a\nb"),
        ("pattern", "a" * 201),
        ("kind", "admin"),
        ("kind", "limit"),
        ("kind", None),
        ("kind", ["agent"]),
        ("reason", ""),
        ("reason", " \t"),
        ("reason", None),
        ("reason", "x" * 501),
        ("reason", "two\nlines"),
        ("principal", ""),
        ("principal", 7),
        ("key", "agw_x"),
        ("ttl_seconds", 0),
        ("ttl_seconds", -1),
        ("ttl_seconds", True),
        ("ttl_seconds", "60"),
        ("ttl_seconds", float("inf")),
        ("ttl", 60),
    ],
)
def test_an_invalid_grant_request_is_rejected_with_the_field(field, value):
    with pytest.raises(InvalidRequestError) as refused:
        parse_grant({**GOOD, field: value}, "root")
    assert (refused.value.status, refused.value.param) == (422, field)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*GOOD, "key", "other"]), st.none() | st.text() | st.integers() | st.booleans()))
def test_any_body_is_parsed_to_a_grant_or_rejected_with_422(body):
    try:
        grant = parse_grant(body, "root")
    except InvalidRequestError as error:
        refused, grant = error, None
    if grant is None:
        assert refused.status == 422
    else:
        assert grant.reason
        assert "**" not in grant.pattern
        assert any(segment != "*" for segment in grant.pattern.split("/"))


def reasons(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "overrides.db")
    try:
        return [reason for (reason,) in connection.execute("SELECT reason FROM overrides ORDER BY created")]
    finally:
        connection.close()
