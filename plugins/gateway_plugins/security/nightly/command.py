"""The group `agent-gateway audit`: the nightly audit itself, and `verify`.

It prints, and its exit status says how bad it is.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from gateway_core import Config, load_config
from gateway_plugins.security.audit.command import verify_command
from gateway_plugins.security.nightly.dependencies import check_dependencies
from gateway_plugins.security.nightly.files import check_audit_log, check_overrides, check_permissions
from gateway_plugins.security.nightly.findings import Finding, Severity
from gateway_plugins.security.nightly.keys import check_keys
from gateway_plugins.security.nightly.rules import check_rules
from gateway_plugins.security.nightly.situation import Situation, read_history

_LEVELS = [severity.name.lower() for severity in Severity]


def audit_command() -> click.Group:
    """The group `audit`; the plugin returns it from `commands`."""

    @click.group(invoke_without_command=True)
    @click.option("--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="The gateway.toml to read.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--unused-days", default=90.0, show_default=True, help="A key or rule unused for so long is told.")
    @click.option("--expiring-days", default=7.0, show_default=True, help="A key that ends within this time is told.")
    @click.option("--offline", is_flag=True, help="Do not run pip-audit, which asks PyPI.")
    @click.option(
        "--fail-on",
        type=click.Choice(_LEVELS),
        default="medium",
        show_default=True,
        help="The exit status is 0 when nothing is as bad as this.",
    )
    @click.pass_context
    def audit(
        context: click.Context,
        file: Path | None,
        as_json: bool,
        unused_days: float,
        expiring_days: float,
        offline: bool,
        fail_on: str,
    ) -> None:
        """Look at keys, rules, overrides, files and dependencies, and say what to mend.

        The exit status is that of the worst finding: 10 low, 20 medium, 30 high, 40 critical.
        """
        if context.invoked_subcommand is not None:
            return
        situation = situation_of(load_config(file), file, unused_days=unused_days, expiring_days=expiring_days)
        findings = sorted(look(situation, offline=offline), key=lambda finding: -finding.severity)
        click.echo(_as_json(findings, situation.now) if as_json else "\n".join(_as_table(findings)))
        worst = max((finding.severity for finding in findings), default=Severity.INFO)
        sys.exit(int(worst) if worst >= Severity[fail_on.upper()] else 0)

    audit.add_command(verify_command())
    return audit


def situation_of(config: Config, file: Path | None, *, unused_days: float, expiring_days: float) -> Situation:
    """A gateway as it is set up.

    Args:
        config: Its settings.
        file: The `gateway.toml` that was named; the one in the working directory otherwise.
        unused_days: After how many days without use a key or rule is told.
        expiring_days: How many days before its end a key is told.
    """
    config_file = file or Path("gateway.toml")
    return Situation(
        tables=config.tables,
        config_file=config_file if config_file.is_file() else None,
        state_folder=config.state.folder,
        now=time.time(),
        history=read_history(config.state.folder),
        unused_days=unused_days,
        expiring_days=expiring_days,
    )


def look(situation: Situation, *, offline: bool) -> Iterator[Finding]:
    """All checks, one after the other."""
    yield from check_keys(situation)
    yield from check_rules(situation)
    yield from check_overrides(situation)
    yield from check_audit_log(situation)
    yield from check_permissions(situation)
    yield from check_dependencies(offline=offline)


def _as_json(findings: Sequence[Finding], now: float) -> str:
    counts = Counter(finding.severity.name.lower() for finding in findings)
    value = {
        "checked": now,
        "worst": findings[0].severity.name.lower() if findings else None,
        "counts": {level: counts[level] for level in reversed(_LEVELS)},
        "findings": [finding.as_json() for finding in findings],
    }
    return json.dumps(value, indent=2)


def _as_table(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield "nothing to mend"
        return
    widths = [max(len(text) for text in column) for column in zip(*map(_cells, findings), strict=True)]
    for finding in findings:
        severity, check = _cells(finding)
        yield f"{severity:{widths[0]}}  {check:{widths[1]}}  {finding.subject}: {finding.message}"
        if finding.hint:
            yield f"{'':{widths[0]}}  {'':{widths[1]}}  → {finding.hint}"
    counts = Counter(finding.severity.name.lower() for finding in findings)
    yield ", ".join(f"{counts[level]} {level}" for level in reversed(_LEVELS) if counts[level])


def _cells(finding: Finding) -> tuple[str, str]:
    return finding.severity.name, finding.check
