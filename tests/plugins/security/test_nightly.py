"""`agent-gateway audit` finds what an operator should mend, and nothing where there is nothing."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import Distribution

import pytest
from attrs import evolve
from click.testing import CliRunner
from gateway_plugins.security.audit.log import AuditLog
from gateway_plugins.security.clock import Clock
from gateway_plugins.security.nightly import dependencies
from gateway_plugins.security.nightly.command import audit_command
from gateway_plugins.security.nightly.dependencies import check_dependencies, known_problems, outdated_pins
from gateway_plugins.security.nightly.files import check_audit_log, check_overrides, check_permissions
from gateway_plugins.security.nightly.findings import Severity
from gateway_plugins.security.nightly.keys import check_keys
from gateway_plugins.security.nightly.rules import check_rules, covers
from gateway_plugins.security.nightly.situation import History, Situation, read_history
from gateway_plugins.security.overrides.grant_request import Grant
from gateway_plugins.security.overrides.manager import OverrideManager
from gateway_plugins.security.settings import AuditSettings, OverrideSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_core import Decision, DecisionMade, Principal, load_config
from tests.plugins.security.support import matches

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
DAY = 86400
GOOD_KEY = {"hash": "sha256:" + "ab" * 32, "id": "agw_ab12cd34", "principal": "ann", "expires": "2026-12-31"}
LONG = History(since=NOW - 200 * DAY, last_used={"agw_ab12cd34": NOW - DAY}, patterns=frozenset({"labs/*"}))


def situation(security=None, *, host="127.0.0.1", **given):
    tables = {"server": {"host": host}, "plugins": {"security": security or {}}}
    return Situation(**{"tables": tables, "config_file": None, "state_folder": None, "now": NOW, **given})


def found(findings):
    return [(finding.severity.name, finding.check, finding.subject) for finding in findings]


def keys(**changes):
    own = {name: value for name, value in {**GOOD_KEY, **changes}.items() if value is not None}
    return situation({"keys": {"ann": own}}, history=LONG)


ANN = "[plugins.security.keys.ann]"


def test_a_good_key_is_no_finding():
    assert found(check_keys(keys())) == []


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
def test_what_is_wrong_with_a_key(changes, severity, check):
    assert found(check_keys(keys(**changes))) == [(severity, check, ANN)]


def test_a_key_is_unused_only_when_the_audit_log_goes_back_far_enough():
    old = evolve(LONG, last_used={"agw_ab12cd34": NOW - 91 * DAY})
    assert found(check_keys(evolve(keys(), history=old))) == [("LOW", "key_unused", ANN)]
    assert found(check_keys(evolve(keys(), history=old, unused_days=100.0))) == []
    assert found(check_keys(evolve(keys(), history=History()))) == []
    assert found(check_keys(evolve(keys(), history=History(since=NOW - 89 * DAY)))) == []


def test_one_key_under_two_names():
    both = situation({"keys": {"a": GOOD_KEY, "b": GOOD_KEY}})
    assert found(check_keys(both)) == [("HIGH", "key_shared", "[plugins.security.keys.a], [plugins.security.keys.b]")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_without_a_key_nobody_else_may_reach_it(host):
    check = ("CRITICAL", "no_keys", "[plugins.security.keys]")
    assert found(check_keys(situation(host=host))) == [check]
    assert check in found(check_keys(situation({"keys": {"a": {**GOOD_KEY, "disabled": True}}}, host=host)))
    assert found(check_keys(situation({"keys": {"a": GOOD_KEY}}, host=host))) == []
    for loopback in ("127.0.0.1", "::1", "localhost"):
        assert found(check_keys(situation(host=loopback))) == []


def test_secrets_in_plain_text_anywhere(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text(
        """
        [plugins.upstreams]
        probe = false
        [plugins.upstreams.a]
        base_url = "https://a.example/v1"
        api_key = "abcdefghijklmnop"
        headers = { X-Proxy-Authorization = "Basic abcdefghijkl" }
        [plugins.upstreams.b]
        base_url = "https://b.example/v1"
        api_key = { env = "B_KEY" }
        [plugins.upstreams.local]
        base_url = "http://127.0.0.1:11434/v1"
        api_key = "ollama"
        """
    )
    environ = {"GATEWAY__PLUGINS__UPSTREAMS__B__API_KEY": "qrstuvwxyzabcdef"}
    tables = load_config(file, environ=environ).tables
    findings = list(check_keys(evolve(situation(), tables=tables)))
    assert found(findings) == [
        ("HIGH", "secret_plain_text", "[plugins.upstreams.a] api_key"),
        ("HIGH", "secret_plain_text", "[plugins.upstreams.a.headers] X-Proxy-Authorization"),
    ]
    assert "abcdefghijkl" not in str(findings)


# Rules


def rules(own, *, host="127.0.0.1", **given):
    return found(check_rules(situation({"rules": own}, host=host, **given)))


RULES = "[plugins.security.rules]"


def test_good_rules_are_no_finding():
    own = {"agents": ["labs/*", "Sample"], "deny_agents": ["labs/Secret"], "tools": ["search"]}
    assert rules(own, host="0.0.0.0") == []


@pytest.mark.parametrize("pattern", ["*", "**", "*/**", "*/*"])
def test_whatever_there_is_is_too_wide_where_others_reach_it(pattern):
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
def test_what_has_no_effect(own, severity, place):
    assert rules(own) == [(severity, "rule_shadowed", f"{RULES} {place}")]


def test_rules_that_never_decided_anything():
    own = {"agents": ["LABS/*", "old"], "deny_agents": ["older"]}
    assert rules(own, history=LONG) == [
        ("LOW", "rule_never_matched", f"{RULES} agents"),
        ("LOW", "rule_never_matched", f"{RULES} deny_agents"),
    ]
    assert rules(own, history=evolve(LONG, since=NOW - 3 * DAY)) == []


def test_the_rules_of_keys_and_namespaces_are_looked_at_too():
    security = {"keys": {"ann": {**GOOD_KEY, "agents": ["**"]}}, "namespaces": {"labs": {"tools": ["*"]}}}
    assert found(check_rules(situation(security))) == [
        ("LOW", "rule_too_wide", "[plugins.security.keys.ann] agents"),
        ("LOW", "rule_too_wide", "[plugins.security.namespaces.labs] tools"),
    ]


PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=4).map("/".join)
NAMES = st.lists(st.sampled_from(["a", "b", "c", "A"]), min_size=1, max_size=5).map("/".join)


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(PATTERNS, PATTERNS, NAMES)
def test_what_is_said_to_be_covered_is(general, special, name):
    if covers(general, special) and matches(special, name):
        assert matches(general, name)


# What is on the disk


async def test_overrides_in_force_are_told(tmp_path):
    wall = Clock(wall=lambda: NOW)
    async with OverrideManager(OverrideSettings(), tmp_path, lambda event: None, wall) as store:
        grant = Grant("agent", "labs/*", "ann", "the demo", 3600.0)
        override = await store.grant(grant, "root")
        here = situation(state_folder=tmp_path)
        [finding] = check_overrides(here)  # also while the gateway runs
    assert [finding] == list(check_overrides(here))
    assert (finding.severity, finding.subject) == (Severity.MEDIUM, override.id)
    assert finding.message == "'ann' may use agent 'labs/*' for 60 minutes more, granted by 'root': the demo"
    assert [*check_overrides(evolve(here, now=NOW + 3600))] == []
    (tmp_path / "overrides.db").write_bytes(b"broken" * 1000)
    assert [f.check for f in check_overrides(here)] == ["overrides_unreadable"]
    assert [*check_overrides(situation(state_folder=tmp_path / "none"))] == []


async def record(folder, *decisions):
    times = iter([])
    async with AuditLog(AuditSettings(), folder, print, Clock(wall=lambda: next(times, NOW))) as log:
        for when, key, pattern in decisions:
            times = iter([when])
            made = DecisionMade("r", Principal("ann"), "agent", "X", Decision(True, "key", pattern), 0.0)
            log.decision(made, key=key)
            await log.settled()


async def test_a_changed_audit_log_is_told(tmp_path):
    here = situation(state_folder=tmp_path)
    assert found(check_audit_log(here)) == [("INFO", "audit_log_missing", "[state] folder")]
    await record(tmp_path, (NOW, "k", "p"), (NOW, "k", "p"))
    assert found(check_audit_log(here)) == []
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    [finding] = check_audit_log(here)
    assert (finding.severity, finding.check) == (Severity.CRITICAL, "audit_log_changed")
    assert "record 2 is missing at the end" in finding.message


async def test_the_history_is_read_from_the_audit_log(tmp_path):
    await record(tmp_path, (100.0, "k1", "labs/A"), (300.0, "k1", None), (200.0, None, "b"))
    with (tmp_path / "audit.jsonl").open("a") as file:
        file.write('[]\n"x"\n{"ts":"x"}\n{"cut')
    assert read_history(tmp_path) == History(100.0, {"k1": 300.0}, frozenset({"labs/a", "b"}))
    assert read_history(None) == read_history(tmp_path / "none") == History()


def test_what_others_may_read_or_write_is_told(tmp_path):
    state, agents, secret = tmp_path / "state", tmp_path / "agents", tmp_path / "secret"
    config = tmp_path / "gateway.toml"
    state.mkdir(0o700), agents.mkdir(0o755)
    for path in (state / "overrides.db", secret):
        path.touch(0o600)
    config.touch(0o644)
    tables = {
        "plugins": {"folder_discovery": {"path": "agents"}, "upstreams": {"a": {"api_key": {"file": "secret"}}}},
        "server": {"host": "127.0.0.1"},
    }
    here = Situation(tables, config, state, NOW)
    assert found(check_permissions(here)) == []
    for path, mode, severity in [
        (config, 0o666, "CRITICAL"),
        (config, 0o664, "MEDIUM"),
        (state, 0o750, "HIGH"),
        (state / "overrides.db", 0o604, "HIGH"),
        (secret, 0o640, "HIGH"),
        (agents, 0o777, "CRITICAL"),
        (agents, 0o775, "MEDIUM"),
    ]:
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        assert found(check_permissions(here)) == [(severity, "file_permissions", str(path))]
        path.chmod(before)


# Dependencies

REPORT = {
    "dependencies": [
        {"name": "fine", "version": "1.0", "vulns": []},
        {"name": "odd", "skip_reason": "not on PyPI"},
        {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}, {"id": "PYSEC-2"}]},
    ],
    "fixes": [],
}


def test_known_problems_are_those_that_pip_audit_tells():
    findings = list(known_problems(json.dumps(REPORT).encode()))
    assert [(f.severity.name, f.subject, f.message, f.hint) for f in findings] == [
        ("HIGH", "bad 1.0", "has a known problem: PYSEC-1", "pip install 'bad>=1.1'"),
        ("HIGH", "bad 1.0", "has a known problem: PYSEC-2", "there is no version without it yet"),
    ]


def test_pip_audit_is_run_when_it_is_installed(tmp_path, monkeypatch):
    tool = tmp_path / "pip-audit"
    tool.write_text(f"#!{sys.executable}\nimport sys\nprint({json.dumps(json.dumps(REPORT))})\nsys.exit(1)\n")
    tool.chmod(0o755)
    monkeypatch.setattr(dependencies, "_pip_audit", lambda: str(tool))
    assert [f.check for f in check_dependencies()] == ["dependency_vulnerable"] * 2
    assert not [f for f in check_dependencies(offline=True) if f.check == "dependency_vulnerable"]
    tool.write_text(f"#!{sys.executable}\nprint('no network')\n")
    assert "dependencies_not_checked" in [f.check for f in check_dependencies()]


@pytest.mark.parametrize("error", [OSError("gone"), subprocess.TimeoutExpired("pip-audit", 1)])
def test_pip_audit_that_does_not_end_is_told(monkeypatch, error):
    def runner(command):
        raise error

    monkeypatch.setattr(dependencies, "_pip_audit", lambda: "pip-audit")
    findings = list(check_dependencies(runner=runner))
    assert (findings[0].check, findings[0].severity) == ("dependencies_not_checked", Severity.LOW)


def test_without_pip_audit_nobody_is_asked(monkeypatch):
    def runner(command):
        raise AssertionError(command)

    monkeypatch.setattr(dependencies, "_pip_audit", lambda: None)
    findings = list(check_dependencies(runner=runner))
    assert findings[-1].check == "dependencies_not_checked"
    assert findings[-1].severity is Severity.INFO


class Installed(Distribution):
    def __init__(self, name, version, requires=(), group=None):
        self._metadata = Message()
        self._metadata["Name"], self._metadata["Version"] = name, version
        for requirement in requires:
            self._metadata["Requires-Dist"] = requirement
        self._group = group

    @property
    def metadata(self):
        return self._metadata

    def read_text(self, filename):
        if filename == "entry_points.txt" and self._group:
            return f"[{self._group}]\nx = x:y\n"
        return self._metadata.as_string() if filename == "METADATA" else None

    def locate_file(self, path):
        return path


def test_pins_that_do_not_fit_what_is_installed():
    installed = [
        Installed("Agent_Gateway", "1.0", ["old>=2", "fine>=1", "gone", "windows; os_name == 'nt'", "x; extra == 'y'"]),
        Installed("my-agents", "1.0", ["old<1"], "agent_gateway.agents"),
        Installed("unrelated", "1.0", ["old<1"]),
        Installed("old", "1.5"),
        Installed("fine", "1.5"),
    ]
    assert [(f.subject, f.message) for f in outdated_pins(installed)] == [
        ("old", "Agent_Gateway asks for old>=2, and 1.5 is installed"),
        ("gone", "Agent_Gateway asks for gone, and none is installed"),
        ("old", "my-agents asks for old<1, and 1.5 is installed"),
    ]


# The command


def run(folder, *arguments, toml=""):
    file = folder / "gateway.toml"
    if not file.exists():
        file.touch(0o600)
        file.write_text(toml)
    return CliRunner().invoke(audit_command(), ["--config", str(file), "--offline", *arguments])


CLEAN = '[state]\nfolder = ""\n[plugins.security]\n'


def test_nothing_to_mend(tmp_path, monkeypatch):
    monkeypatch.setattr(dependencies, "distributions", list)
    (tmp_path / "agents").mkdir(0o755)
    result = run(tmp_path, toml=CLEAN)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "1 info"
    assert json.loads(run(tmp_path, "--json").output)["worst"] == "info"


@pytest.mark.parametrize(
    ("toml", "status"),
    [
        ('[plugins.security.keys.a]\nhash = "sha256:%s"\nexpires = "2020-01-01"' % ("a" * 64), 0),
        ('[plugins.security.keys.a]\nhash = "sha256:%s"' % ("a" * 64), 20),
        ('[plugins.security.rules]\nagents = ["**"]\n[server]\nhost = "0.0.0.0"', 40),
        ('[plugins.security.keys.a]\nadmin = true\nhash = "sha256:%s"' % ("a" * 64), 30),
    ],
)
def test_the_exit_status_is_that_of_the_worst(tmp_path, monkeypatch, toml, status):
    monkeypatch.setattr(dependencies, "distributions", list)
    (tmp_path / "agents").mkdir(0o755)
    result = run(tmp_path, toml=f'[state]\nfolder = ""\n{toml}\n')
    assert result.exit_code == status, result.output
    severities = [line.split()[0] for line in result.output.splitlines()[:-1] if line[0] != " "]
    assert severities == sorted(severities, key=lambda name: -Severity[name])
    assert run(tmp_path, "--fail-on", "critical").exit_code == (status if status == 40 else 0)
    if not status:
        assert run(tmp_path, "--fail-on", "low").exit_code == 10


def test_verify_is_a_command_of_the_group(tmp_path):
    result = CliRunner().invoke(audit_command(), ["verify", "--help"])
    assert result.exit_code == 0
    assert "no audit records were edited" in result.output
