"""What is on the disk: overrides in force, the audit log, and who may read and write the files.

It opens the file of overrides for reading only, and mends nothing.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_plugins.security.audit.verify import verify
from gateway_plugins.security.nightly.findings import Finding, Severity
from gateway_plugins.security.nightly.situation import Situation, Table, table
from gateway_plugins.security.overrides.manager import FILE_NAME
from gateway_plugins.security.overrides.storage import read

_PATH_NAMES = ("path", "folder", "file")


def check_overrides(situation: Situation) -> Iterator[Finding]:
    """The overrides that are in force."""
    path = situation.state_folder / FILE_NAME if situation.state_folder else None
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
        minutes = int((override.expires - situation.now) / 60)
        if override.expires > situation.now:
            yield Finding(
                Severity.MEDIUM,
                "override_outstanding",
                override.id,
                f"'{override.principal}' may use {override.kind} '{override.pattern}' for {minutes} minutes more, "
                f"granted by '{override.granted_by}': {override.reason}",
                f"DELETE /security/override/{override.id} ends it",
            )


def check_audit_log(situation: Situation) -> Iterator[Finding]:
    """Whether the audit log is whole."""
    folder = situation.state_folder
    heads = sorted(folder.glob("audit*.head")) if folder and folder.is_dir() else []
    if not heads:
        yield Finding(Severity.INFO, "audit_log_missing", "[state] folder", "there is no audit log yet")
    for head in heads:
        path = head.with_suffix(".jsonl")
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
                "find out who could write there; a copy kept elsewhere shows what it was",
            )
        for note in report.notes:
            severity = Severity.MEDIUM if "could not be written" in note else Severity.INFO
            yield Finding(severity, "audit_log", str(path), note)


def check_permissions(situation: Situation) -> Iterator[Finding]:
    """Who else may read and write what the gateway goes by."""
    if situation.config_file is not None:
        yield from _writable(situation.config_file, "decides who may do what")
    if situation.state_folder is not None and situation.state_folder.is_dir():
        for path in (situation.state_folder, *sorted(situation.state_folder.iterdir())):
            yield from _private(path, "holds what is granted and what was decided")
    base = situation.config_file.parent if situation.config_file else Path()
    for path in sorted(set(_secret_files(situation.tables, base))):
        yield from _private(path, "holds a secret")
    for path in sorted(set(_named_paths(table(situation.tables, "plugins"), base))):
        yield from _writable(path, "is a folder that code is loaded from, or a file that a plugin goes by")


def _private(path: Path, why: str) -> Iterator[Finding]:
    mode = _mode(path)
    if mode is not None and mode & 0o077:
        yield Finding(
            Severity.HIGH,
            "file_permissions",
            str(path),
            f"{why}, and others than its owner have rights to it (mode {mode:04o})",
            f"chmod {'700' if path.is_dir() else '600'} {path}",
        )


def _writable(path: Path, why: str) -> Iterator[Finding]:
    mode = _mode(path)
    # A sticky folder lets nobody replace another's file, but everybody add one.
    if mode is not None and mode & 0o022:
        severity = Severity.CRITICAL if mode & 0o002 else Severity.MEDIUM
        who = "everybody" if mode & 0o002 else "its group"
        yield Finding(
            severity,
            "file_permissions",
            str(path),
            f"{why}, and {who} may write it (mode {mode:04o})",
            f"chmod go-w {path}",
        )


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def _secret_files(value: Any, base: Path) -> Iterator[Path]:
    if isinstance(value, dict):
        if set(value) == {"file"}:
            yield base / Path(str(value["file"])).expanduser()
            return
        for inner in value.values():
            yield from _secret_files(inner, base)
    elif isinstance(value, list):
        for inner in value:
            yield from _secret_files(inner, base)


def _named_paths(plugins: Table, base: Path) -> Iterator[Path]:
    for own in plugins.values():
        for name, value in own.items() if isinstance(own, dict) else ():
            if name in _PATH_NAMES and isinstance(value, str) and value:
                yield base / Path(value).expanduser()
