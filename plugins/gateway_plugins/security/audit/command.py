"""The command `agent-gateway audit verify`, which checks the integrity of the audit log. It is read-only."""

import json
import sys
from pathlib import Path

import click
from attrs import asdict

from gateway_core import ConfigError, load_config
from gateway_plugins.security.audit.hash_chain import audit_logs
from gateway_plugins.security.audit.verify import Report, verify


def audit_command() -> click.Group:
    """Create the group `audit` with `verify`. It has no callback, so that another plugin can provide one."""
    return click.Group("audit", help="Commands for the audit log.", commands=[verify_command()])


def verify_command() -> click.Command:
    """Create the command `verify` for the group `audit`."""

    @click.command("verify")
    @click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=True))
    @click.option(
        "--config",
        "settings",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (default: gateway.toml).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def verify_(file: Path | None, settings: Path | None, as_json: bool) -> None:
        """Check that no audit records were edited or removed.

        FILE is any file of a log, which is then read completely, or a folder of logs (default: the [state] folder). The
        exit status is 1 if a log was changed.
        """
        reports = [_verify(path) for path in _logs(file or load_config(settings).state.folder)]
        if as_json:
            click.echo(json.dumps([{**asdict(report), "ok": report.ok} for report in reports], indent=2))
        else:
            for report in reports:
                _print(report)
        sys.exit(0 if all(report.ok for report in reports) else 1)

    return verify_


def _logs(path: Path | None) -> list[Path]:
    """The active file of each log at the path."""
    if path is None or not path.exists():
        raise ConfigError(
            "no audit log found: the state folder is not set or does not exist", hint="pass the path of the log as FILE"
        )
    if path.is_file():
        return [path]
    logs = audit_logs(path)
    if not logs:
        raise ConfigError("no audit log found in this folder", source=str(path))
    return logs


def _verify(path: Path) -> Report:
    try:
        return verify(path)
    except OSError as error:
        raise ConfigError(f"the audit log cannot be read: {error.strerror}", source=str(path)) from error


def _print(report: Report) -> None:
    for problem in report.problems:
        click.echo(f"problem  {problem}")
    for note in report.notes:
        click.echo(f"note     {note}")
    span = f"{report.records} records ({report.first} to {report.last})" if report.records else "no records"
    click.echo(f"{'ok' if report.ok else 'CHANGED'}: {', '.join(report.files)}: {span}")
