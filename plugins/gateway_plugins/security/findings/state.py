"""Findings about the state folder: active overrides, and the integrity of the audit log.

The database of overrides is opened read-only.
"""

import sqlite3
from collections.abc import Iterator

from gateway_core import AuditContext, Finding, Severity
from gateway_plugins.security.audit.hash_chain import audit_logs
from gateway_plugins.security.audit.verify import verify
from gateway_plugins.security.overrides.manager import FILE_NAME
from gateway_plugins.security.overrides.storage import read


def override_findings(context: AuditContext) -> Iterator[Finding]:
    """One finding for each active override."""
    path = context.state_folder / FILE_NAME if context.state_folder else None
    if path is None or not path.exists():
        return
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)
        try:
            overrides = read(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        yield Finding(Severity.MEDIUM, "overrides_unreadable", str(path), f"cannot be read: {error}")
        return
    for override in overrides:
        minutes = int((override.expires - context.now) / 60)
        if override.expires > context.now:
            yield Finding(
                Severity.MEDIUM,
                "override_outstanding",
                override.id,
                f"'{override.principal}' may use {override.kind} '{override.pattern}' for {minutes} more minutes, "
                f"granted by '{override.granted_by}': {override.reason}",
                f"DELETE /security/override/{override.id} revokes it",
            )


def audit_log_findings(context: AuditContext) -> Iterator[Finding]:
    """Changed, unreadable and missing audit logs, and the notes of the verification."""
    logs = audit_logs(context.state_folder)
    if not logs:
        yield Finding(Severity.INFO, "audit_log_missing", "[state] folder", "there is no audit log yet")
    for path in logs:
        try:
            report = verify(path)
        except OSError as error:
            yield Finding(Severity.HIGH, "audit_log_unreadable", str(path), f"cannot be read: {error.strerror}")
            continue
        for problem in report.problems:
            yield Finding(
                Severity.CRITICAL,
                "audit_log_changed",
                str(path),
                str(problem),
                "find out who can write to it, and compare it with a copy on another system",
            )
        for note in report.notes:
            severity = Severity.MEDIUM if "could not be written" in note else Severity.INFO
            yield Finding(severity, "audit_log", str(path), note)
