"""The audit findings of the plugin `security`: keys, rules, active overrides, and the integrity of the audit log.

They are based on the settings as written and on the state folder. Nothing is changed, and no rule is evaluated.
"""

from collections.abc import Iterator

from gateway_core import AuditContext, Finding
from gateway_plugins.security.findings.history import read_history
from gateway_plugins.security.findings.keys import key_findings
from gateway_plugins.security.findings.rules import rule_findings
from gateway_plugins.security.findings.state import audit_log_findings, override_findings


def security_findings(context: AuditContext) -> Iterator[Finding]:
    """All findings of the plugin."""
    history = read_history(context.state_folder)
    yield from key_findings(context, history)
    yield from rule_findings(context, history)
    yield from override_findings(context)
    yield from audit_log_findings(context)
