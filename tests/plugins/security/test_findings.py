"""The audit findings of the plugin `security`: one for each problem, and none for good settings."""

from datetime import UTC, datetime

import pytest
from attrs import evolve
from gateway_plugins.security import Security
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.findings.history import History, read_history
from gateway_plugins.security.findings.keys import key_findings
from gateway_plugins.security.findings.rules import covers, rule_findings
from gateway_plugins.security.findings.state import audit_log_findings, override_findings
from gateway_plugins.security.overrides.grant_request import Grant
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import AuditSettings, OverrideSettings, Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_core import AuditContext, Decision, DecisionMade, Principal, Severity
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.tools.patterns import PatternSet, parse_pattern, split_name

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
DAY = 86400
GOOD_KEY = {"hash": "sha256:" + "ab" * 32, "id": "agw_ab12cd34", "principal": "ann", "expires": "2026-12-31"}
LONG = History(since=NOW - 200 * DAY, last_used={"agw_ab12cd34": NOW - DAY}, patterns=frozenset({"labs/*"}))


def context(security=None, *, host="127.0.0.1", **given):
    tables = {"server": {"host": host}, "plugins": {"security": security or {}}}
    return AuditContext(**{"tables": tables, "config_file": None, "state_folder": None, "now": NOW, **given})


def found(findings):
    return [(finding.severity.name, finding.check, finding.subject) for finding in findings]


# Keys

ANN = "[plugins.security.keys.ann]"


def keys(given, history=LONG):
    return found(key_findings(given, history))


def with_key(**changes):
    own = {name: value for name, value in {**GOOD_KEY, **changes}.items() if value is not None}
    return context({"keys": {"ann": own}})


def test_a_good_key_has_no_findings():
    assert keys(with_key()) == []


@pytest.mark.parametrize(
    ("changes", "severity", "check"),
    [
        ({"hash": "my-password"}, "CRITICAL", "key_plain_text"),
        ({"hash": None}, "CRITICAL", "key_plain_text"),
        ({"hash": "sha256:short"}, "CRITICAL", "key_plain_text"),
        ({"expires": None}, "MEDIUM", "key_no_expiry"),
        ({"expires": None, "admin": True}, "HIGH", "key_no_expiry"),
        ({"expires": "soon"}, "HIGH", "key_expiry_unreadable"),
        ({"expires": "2026-05-31T12:00:00Z"}, "LOW", "key_expired"),
        ({"expires": "2026-06-01T12:00:00Z"}, "LOW", "key_expired"),
        ({"expires": "2026-06-01T13:00:00+00:00"}, "MEDIUM", "key_expiring"),
        ({"expires": "2026-06-08T11:59:00Z"}, "MEDIUM", "key_expiring"),
        ({"expires": datetime(2026, 6, 3)}, "MEDIUM", "key_expiring"),
        ({"disabled": True, "expires": None}, "INFO", "key_disabled"),
        ({"id": "agw_other"}, "LOW", "key_unused"),
    ],
)
def test_each_problem_of_a_key_is_a_finding(changes, severity, check):
    assert keys(with_key(**changes)) == [(severity, check, ANN)]


def test_a_key_is_unused_only_if_the_audit_log_covers_the_period():
    old = evolve(LONG, last_used={"agw_ab12cd34": NOW - 91 * DAY})
    assert keys(with_key(), old) == [("LOW", "key_unused", ANN)]
    assert keys(evolve(with_key(), unused_days=100.0), old) == []
    assert keys(with_key(), History()) == []
    assert keys(with_key(), History(since=NOW - 89 * DAY)) == []


def test_one_key_under_two_names_is_shared():
    both = context({"keys": {"a": GOOD_KEY, "b": GOOD_KEY}})
    assert keys(both) == [("HIGH", "key_shared", "[plugins.security.keys.a], [plugins.security.keys.b]")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_an_exposed_gateway_without_keys_is_a_finding(host):
    no_keys = ("CRITICAL", "no_keys", "[plugins.security.keys]")
    assert keys(context(host=host)) == [no_keys]
    assert no_keys in keys(context({"keys": {"a": {**GOOD_KEY, "disabled": True}}}, host=host))
    assert keys(context({"keys": {"a": GOOD_KEY}}, host=host)) == []
    for loopback in ("127.0.0.1", "::1", "[::1]", "localhost"):
        assert keys(context(host=loopback)) == []


# Rules

RULES = "[plugins.security.rules]"


def rules(own, history=None, **given):
    return found(rule_findings(context({"rules": own}, **given), history or History()))


def test_good_rules_have_no_findings():
    own = {"agents": ["labs/*", "Sample"], "deny_agents": ["labs/Secret"], "tools": ["search"]}
    assert rules(own, host="0.0.0.0") == []


@pytest.mark.parametrize("pattern", ["*", "**", "*/**", "*/*"])
def test_a_pattern_that_allows_everything_is_worse_on_an_exposed_gateway(pattern):
    for kind in ("agents", "tools", "modules"):
        assert rules({kind: [pattern]}) == [("LOW", "rule_too_wide", f"{RULES} {kind}")]
        assert rules({kind: [pattern]}, host="0.0.0.0") == [("HIGH", "rule_too_wide", f"{RULES} {kind}")]
    assert rules({"deny_agents": [pattern]}, host="0.0.0.0") == []


@pytest.mark.parametrize(
    ("own", "severity", "place"),
    [
        ({"agents": ["labs/a"], "deny_agents": ["labs/*"]}, "MEDIUM", "agents"),
        ({"tools": ["search"], "deny_tools": ["SEARCH"]}, "MEDIUM", "tools"),
        ({"modules": ["x/**"], "deny_modules": ["**"]}, "MEDIUM", "modules"),
        ({"agents": ["labs/a", "labs/*"]}, "LOW", "agents"),
        ({"agents": ["labs/a", "labs/A"]}, "LOW", "agents"),
        ({"deny_agents": ["labs/**", "labs/a/b"]}, "LOW", "deny_agents"),
    ],
)
def test_patterns_without_effect_are_findings(own, severity, place):
    assert rules(own) == [(severity, "rule_shadowed", f"{RULES} {place}")]


def test_patterns_that_never_decided_a_request_are_findings():
    own = {"agents": ["LABS/*", "old"], "deny_agents": ["older"]}
    assert rules(own, LONG) == [
        ("LOW", "rule_never_matched", f"{RULES} agents"),
        ("LOW", "rule_never_matched", f"{RULES} deny_agents"),
    ]
    assert rules(own, evolve(LONG, since=NOW - 3 * DAY)) == []


def test_the_rules_of_keys_and_namespaces_are_checked():
    security = {"keys": {"ann": {**GOOD_KEY, "agents": ["**"]}}, "namespaces": {"labs": {"tools": ["*"]}}}
    assert found(rule_findings(context(security), History())) == [
        ("LOW", "rule_too_wide", "[plugins.security.keys.ann] agents"),
        ("LOW", "rule_too_wide", "[plugins.security.namespaces.labs] tools"),
    ]


PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=4).map("/".join)
NAMES = st.lists(st.sampled_from(["a", "b", "c", "A"]), min_size=1, max_size=5).map("/".join)


def matches(pattern, name):
    return PatternSet([(pattern, parse_pattern(pattern))]).first(split_name(name)) is not None


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(PATTERNS, PATTERNS, NAMES)
def test_a_covering_pattern_matches_all_names_of_the_other(general, special, name):
    if covers(general, special) and matches(special, name):
        assert matches(general, name)


# The state folder


async def test_active_overrides_are_findings(tmp_path):
    wall = Clock(wall=lambda: NOW)
    async with OverrideManager(OverrideSettings(), tmp_path, lambda *_: None, wall) as store:
        grant = Grant("agent", "labs/*", "ann", "the demo", 3600.0)
        override = await store.grant(grant, "root")
        here = context(state_folder=tmp_path)
        [finding] = override_findings(here)  # also while the gateway runs
    assert [finding] == list(override_findings(here))
    assert (finding.severity, finding.subject) == (Severity.MEDIUM, override.id)
    assert finding.message == "'ann' may use agent 'labs/*' for 60 more minutes, granted by 'root': the demo"
    assert [*override_findings(evolve(here, now=NOW + 3600))] == []
    (tmp_path / "overrides.db").write_bytes(b"broken" * 1000)
    assert [f.check for f in override_findings(here)] == ["overrides_unreadable"]
    assert [*override_findings(context(state_folder=tmp_path / "none"))] == []


async def record(folder, *decisions):
    times = iter([])
    async with AuditLog(AuditSettings(), folder, print, Clock(wall=lambda: next(times, NOW))) as log:
        for when, key, pattern in decisions:
            times = iter([when])
            made = DecisionMade("r", Principal("ann", key=key), "agent", "X", Decision(True, "key", pattern), 0.0)
            log.decision(made)
            await log.settled()


async def test_a_changed_audit_log_is_a_finding(tmp_path):
    here = context(state_folder=tmp_path)
    assert found(audit_log_findings(here)) == [("INFO", "audit_log_missing", "[state] folder")]
    await record(tmp_path, (NOW, "k", "p"), (NOW, "k", "p"))
    assert found(audit_log_findings(here)) == []
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    [finding] = audit_log_findings(here)
    assert (finding.severity, finding.check) == (Severity.CRITICAL, "audit_log_changed")
    assert "record 2 is missing at the end" in finding.message


async def test_the_history_is_read_from_the_audit_log(tmp_path):
    await record(tmp_path, (100.0, "k1", "labs/A"), (300.0, "k1", None), (200.0, None, "b"))
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('[]\n"x"\n{"ts":"x"}\n{"cut')
    assert read_history(tmp_path) == History(100.0, {"k1": 300.0}, frozenset({"labs/a", "b"}))
    assert read_history(None) == read_history(tmp_path / "none") == History()


# The hook


async def test_the_hook_returns_all_findings(tmp_path):
    await record(tmp_path, (NOW - 200 * DAY, "k", "p"))
    hooks = Hooks({"security": Security(NullGateway(), Settings())})
    security = {"keys": {"ann": GOOD_KEY}, "rules": {"agents": ["**"]}}
    assert found(hooks.audit_findings(context(security, state_folder=tmp_path))) == [
        ("LOW", "key_unused", ANN),
        ("LOW", "rule_too_wide", f"{RULES} agents"),
        ("LOW", "rule_never_matched", f"{RULES} agents"),
    ]


@pytest.mark.parametrize("security", [{"keys": 1}, {"keys": {"a": 1}, "namespaces": [], "rules": {"agents": "x"}}])
def test_values_of_a_wrong_type_are_ignored(security):
    hooks = Hooks({"security": Security(NullGateway(), Settings())})
    assert [finding.check for finding in hooks.audit_findings(context(security))] == ["audit_log_missing"]
