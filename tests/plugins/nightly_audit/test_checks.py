"""The own checks of `nightly_audit`: plain-text secrets, file permissions, vulnerable and conflicting packages."""

import json
import stat
import sys

import pytest
from gateway_plugins.nightly_audit import dependencies
from gateway_plugins.nightly_audit.dependencies import dependency_findings, read_report
from gateway_plugins.nightly_audit.permissions import permission_findings
from gateway_plugins.nightly_audit.plain_text import plain_text_findings

from gateway_core import AuditContext, Severity, load_config


def found(findings):
    return [(finding.severity.name, finding.check, finding.subject) for finding in findings]


def test_secrets_in_plain_text_anywhere_are_findings(tmp_path):
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
    findings = list(plain_text_findings(AuditContext(tables, file, None, 0.0)))
    assert found(findings) == [
        ("HIGH", "secret_plain_text", "[plugins.upstreams.a] api_key"),
        ("HIGH", "secret_plain_text", "[plugins.upstreams.a.headers] X-Proxy-Authorization"),
    ]
    assert "abcdefghijkl" not in str(findings)


def test_files_that_other_users_can_read_or_write_are_findings(tmp_path):
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
    here = AuditContext(tables, config, state, 0.0)
    assert found(permission_findings(here)) == []
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
        assert found(permission_findings(here)) == [(severity, "file_permissions", str(path))]
        path.chmod(before)


# pip-audit

REPORT = {
    "dependencies": [
        {"name": "fine", "version": "1.0", "vulns": []},
        {"name": "odd", "skip_reason": "not on PyPI"},
        {"name": "bad", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}, {"id": "PYSEC-2"}]},
    ],
    "fixes": [],
}


def test_known_vulnerabilities_are_those_in_the_report():
    findings = list(read_report(json.dumps(REPORT).encode()))
    assert [(f.severity.name, f.subject, f.message, f.hint) for f in findings] == [
        ("HIGH", "bad 1.0", "has the known vulnerability PYSEC-1", "pip install 'bad>=1.1'"),
        ("HIGH", "bad 1.0", "has the known vulnerability PYSEC-2", "no fixed version is available yet"),
    ]


@pytest.fixture
def pip_audit(tmp_path, monkeypatch):
    """Installs a script as `pip-audit`. No pip, so that only the script runs."""
    monkeypatch.setitem(sys.modules, "pip", None)

    def install(script):
        tool = tmp_path / "pip-audit"
        tool.write_text(f"#!{sys.executable}\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setattr(dependencies, "_pip_audit", lambda: str(tool))

    return install


def about(subject, findings):
    return [(f.severity, f.check) for f in findings if f.subject.startswith(subject)]


def test_pip_audit_runs_if_it_is_installed(pip_audit):
    pip_audit(f"import sys\nprint({json.dumps(json.dumps(REPORT))})\nsys.exit(1)")
    assert about("bad", dependency_findings()) == [(Severity.HIGH, "dependency_vulnerable")] * 2
    assert about("bad", dependency_findings(offline=True)) == []


def test_a_failure_of_pip_audit_is_a_finding(pip_audit):
    pip_audit("print('no network')")
    assert about("pip-audit", dependency_findings()) == [(Severity.LOW, "dependencies_not_checked")]


def test_a_timeout_of_pip_audit_is_a_finding(pip_audit, monkeypatch):
    pip_audit("import time\ntime.sleep(100)")
    monkeypatch.setattr(dependencies, "_TIMEOUT_SECONDS", 0.2)
    assert about("pip-audit", dependency_findings()) == [(Severity.LOW, "dependencies_not_checked")]


def test_a_missing_pip_audit_is_a_finding_unless_offline(monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr(dependencies, "_pip_audit", lambda: None)
    assert about("pip-audit", dependency_findings()) == [(Severity.INFO, "dependencies_not_checked")]
    assert about("pip-audit", dependency_findings(offline=True)) == []


# pip check


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a distribution with requirements visible to this environment's Python."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(name, version, *requirements):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return install


def test_missing_and_conflicting_packages_are_findings(install, monkeypatch):
    monkeypatch.setenv("PIP_QUIET", "3")  # does not hide the findings
    install("acme_agents", "1.0", "acme-gone", "acme-lib<3,>=2; python_version >= '3'", "acme-x; extra == 'x'", "attrs")
    install("acme_lib", "1.5")
    findings = [f for f in dependency_findings(offline=True) if f.subject.startswith("acme")]
    assert [(f.severity, f.check, f.subject, f.hint) for f in findings] == [
        (Severity.MEDIUM, "dependency_outdated", "acme-gone", "pip install acme-gone"),
        (Severity.MEDIUM, "dependency_outdated", "acme-lib", findings[1].hint),
    ]
    assert findings[0].message.replace("_", "-") == "acme-agents 1.0 requires acme-gone, which is not installed"
    assert findings[1].message.replace("_", "-").startswith("acme-agents 1.0 requires acme-lib<3,>=2;")
    assert findings[1].message.endswith("; version 1.5 is installed")
    assert findings[1].hint.startswith("pip install 'acme-lib<3,>=2;")


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Puts a script in place of pip."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda script: (tmp_path / "pip.py").write_text(f"import sys, time\n{script}\n")


def pip_check():
    return [(f.severity, f.check, f.message) for f in dependency_findings(offline=True) if f.subject == "pip check"]


def test_other_lines_of_pip_check_are_findings(pip):
    pip("print('acme 1.0 is not supported on this platform')\nsys.exit(1)")
    line = "acme 1.0 is not supported on this platform"
    assert pip_check() == [(Severity.MEDIUM, "dependency_outdated", line)]


def test_a_failure_of_pip_check_is_a_finding(pip):
    pip("sys.exit(2)")
    assert pip_check() == [(Severity.LOW, "dependencies_not_checked", "failed with exit status 2")]


def test_a_timeout_of_pip_check_is_a_finding(pip, monkeypatch):
    pip("time.sleep(100)")
    monkeypatch.setattr(dependencies, "_TIMEOUT_SECONDS", 0.2)
    assert pip_check() == [(Severity.LOW, "dependencies_not_checked", "failed: TimeoutExpired")]


def test_a_missing_pip_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "pip", None)
    [finding] = dependency_findings(offline=True)
    assert (finding.severity, finding.check, finding.subject) == (Severity.INFO, "dependencies_not_checked", "pip")
    assert "ensurepip" in finding.hint
