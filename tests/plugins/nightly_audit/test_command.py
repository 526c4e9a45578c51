"""`agent-gateway audit` prints the findings of all plugins and exits with the worst severity."""

import json
import subprocess

import pytest
from click.testing import CliRunner
from gateway_plugins.nightly_audit import dependencies

from gateway_core import AuditContext, Finding, Severity, hookimpl, load_config
from gateway_core.gateway import RunningGateway
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins

CLEAN = '[state]\nfolder = ""\n'
HASH = "a" * 64


@pytest.fixture(autouse=True)
def no_conflicts(monkeypatch):
    """The packages of the environment that runs the tests do not change the results."""
    monkeypatch.setattr(dependencies, "_run", lambda command: subprocess.CompletedProcess(command, 0, b"", b""))


def audit(folder, *arguments, toml=CLEAN, extra=None, disabled=()):
    """Run the command with the plugins of a configuration, as the command line does."""
    (folder / "agents").mkdir(0o755, exist_ok=True)
    file = folder / "gateway.toml"
    file.touch(0o600)
    file.write_text(toml)
    gateway = NullGateway()
    off = {"plugins": {name: {"enabled": False} for name in disabled}}
    gateway.hooks = load_plugins(load_config(environ={}, overrides=off), gateway, extra).hooks
    command = gateway.hooks.commands()["audit"]
    return CliRunner().invoke(command, ["--config", str(file), "--offline", *arguments])


def test_a_good_configuration_has_no_findings_but_information(tmp_path):
    result = audit(tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "1 info"
    assert json.loads(audit(tmp_path, "--json").output)["worst"] == "info"


@pytest.mark.parametrize(
    ("toml", "status"),
    [
        (f'[plugins.security.keys.a]\nhash = "sha256:{HASH}"\nexpires = "2020-01-01"', 0),
        (f'[plugins.security.keys.a]\nhash = "sha256:{HASH}"', 20),
        ('[plugins.security.rules]\nagents = ["**"]\n[server]\nhost = "0.0.0.0"', 40),
        (f'[plugins.security.keys.a]\nadmin = true\nhash = "sha256:{HASH}"', 30),
    ],
)
def test_the_exit_status_is_that_of_the_worst_finding(tmp_path, toml, status):
    result = audit(tmp_path, toml=CLEAN + toml)
    assert result.exit_code == status, result.output
    severities = [line.split()[0] for line in result.output.splitlines()[:-1] if line[0] != " "]
    assert severities == sorted(severities, key=lambda name: -Severity[name])
    assert audit(tmp_path, "--fail-on", "critical", toml=CLEAN + toml).exit_code == (status if status == 40 else 0)
    if not status:
        assert audit(tmp_path, "--fail-on", "low", toml=CLEAN + toml).exit_code == 10


def test_the_json_contains_all_findings(tmp_path):
    result = audit(tmp_path, "--json", toml=CLEAN + f'[plugins.security.keys.a]\nhash = "sha256:{HASH}"')
    report = json.loads(result.output)
    assert set(report) == {"checked", "worst", "counts", "findings"}
    assert (report["worst"], report["counts"]) == (
        "medium",
        {"critical": 0, "high": 0, "medium": 1, "low": 0, "info": 1},
    )
    assert report["findings"][0] == {
        "severity": "medium",
        "check": "key_no_expiry",
        "subject": "[plugins.security.keys.a]",
        "message": "a key that never expires",
        "hint": 'set `expires = "YYYY-MM-DD"`',
    }


def test_the_options_reach_the_other_plugins(tmp_path):
    seen = []

    class Other:
        def __init__(self, gateway, config):
            pass

        @hookimpl
        def audit_findings(self, context):
            seen.append(context)
            return [Finding(Severity.LOW, "other_check", "[plugins.other]", "is odd")]

    result = audit(tmp_path, "--unused-days", "5", "--expiring-days", "3", extra={"other": Other})
    assert "other_check" in result.output
    [context] = seen
    assert (context.unused_days, context.expiring_days, context.state_folder) == (5.0, 3.0, None)
    assert context.config_file == tmp_path / "gateway.toml"


class Broken:
    def __init__(self, gateway, config):
        pass

    @hookimpl
    def audit_findings(self, context):
        yield Finding(Severity.LOW, "before", "[plugins.broken]", "is odd")
        raise RuntimeError("the secret value")


def test_a_check_that_raises_is_a_finding(tmp_path):
    result = audit(tmp_path, extra={"broken": Broken})
    assert result.exit_code == 30
    assert "audit_check_failed" in result.output
    assert "plugin broken: the audit checks failed: RuntimeError" in result.output
    assert "secret value" not in result.output
    assert "Traceback" not in result.output
    assert {"before", "audit_log_missing"} <= {line.split()[1] for line in result.output.splitlines()}


def test_the_own_checks_run_without_security(tmp_path):
    toml = CLEAN + '[plugins.upstreams.a]\nbase_url = "http://127.0.0.1:1"\napi_key = "abcdefghijklmnop"'
    result = audit(tmp_path, toml=toml, disabled=["security"])
    assert result.exit_code == 30
    assert [line.split()[:2] for line in result.output.splitlines() if line[0] != " "] == [
        ["HIGH", "secret_plain_text"],
        ["1", "high"],
    ]
    assert audit(tmp_path, disabled=["security"]).output == "no findings\n"


def test_a_running_gateway_offers_the_findings(tmp_path):
    config = load_config(environ={})
    context = AuditContext(config.tables, None, tmp_path, 0.0)
    checks = [finding.check for finding in RunningGateway(config, {"broken": Broken}).audit_findings(context)]
    assert checks == ["audit_log_missing", "before", "audit_check_failed"]
