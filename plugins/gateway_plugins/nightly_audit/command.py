"""The group `agent-gateway audit`: runs all checks, prints the findings, and exits with the worst severity."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from gateway_core import AuditContext, Finding, Gateway, Severity, load_config
from gateway_plugins.nightly_audit.dependencies import dependency_findings
from gateway_plugins.nightly_audit.permissions import permission_findings
from gateway_plugins.nightly_audit.plain_text import plain_text_findings

_LEVELS = [severity.name.lower() for severity in Severity]


def audit_command(gateway: Gateway) -> click.Group:
    """Create the group `audit`.

    Args:
        gateway: Provides the findings of the other plugins.
    """

    @click.group(invoke_without_command=True)
    @click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (default: gateway.toml).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option("--unused-days", default=90.0, show_default=True, help="Report keys and rules unused for this long.")
    @click.option("--expiring-days", default=7.0, show_default=True, help="Report keys that expire within this time.")
    @click.option("--offline", is_flag=True, help="Do not run pip-audit, which queries PyPI.")
    @click.option(
        "--fail-on",
        type=click.Choice(_LEVELS),
        default="medium",
        show_default=True,
        help="Exit with 0 if all findings are below this severity.",
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
        """Check keys, rules, overrides, files and dependencies, and print how to fix the findings.

        The exit status is that of the most severe finding: 10 low, 20 medium, 30 high, 40 critical.
        """
        if context.invoked_subcommand is not None:
            return
        audited = _context(file, unused_days, expiring_days)
        findings = [*gateway.audit_findings(audited), *_own_findings(audited, offline=offline)]
        findings.sort(key=lambda finding: -finding.severity)
        click.echo(_as_json(findings, audited.now) if as_json else "\n".join(_as_table(findings)))
        worst = max((finding.severity for finding in findings), default=Severity.INFO)
        sys.exit(int(worst) if worst >= Severity[fail_on.upper()] else 0)

    return audit


def _context(file: Path | None, unused_days: float, expiring_days: float) -> AuditContext:
    config, path = load_config(file), file or Path("gateway.toml")
    return AuditContext(
        tables=config.tables,
        config_file=path if path.is_file() else None,
        state_folder=config.state.folder,
        now=time.time(),
        unused_days=unused_days,
        expiring_days=expiring_days,
    )


def _own_findings(context: AuditContext, *, offline: bool) -> Iterator[Finding]:
    yield from plain_text_findings(context)
    yield from permission_findings(context)
    yield from dependency_findings(offline=offline)


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
        yield "no findings"
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
