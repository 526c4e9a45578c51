"""Findings about file permissions: other users who can read secrets and state, or write settings and code."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_core import AuditContext, Finding, Severity

_PATH_NAMES = ("path", "folder", "file")


def permission_findings(context: AuditContext) -> Iterator[Finding]:
    """Findings about `gateway.toml`, the state folder, and the files and folders that the settings name."""
    if context.config_file is not None:
        yield from _writable(context.config_file, "controls access to the gateway")
    folder = context.state_folder
    if folder is not None and folder.is_dir():
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            message = f"the files cannot be checked: {error.strerror}"
            yield Finding(Severity.LOW, "file_permissions", str(folder), message, "run the audit as the gateway's user")
            paths = []
        for path in (folder, *paths):
            yield from _private(path, "contains overrides, audit records or conversations")
    base = context.config_file.parent if context.config_file else Path()
    for path in sorted(set(_secret_files(context.tables, base))):
        yield from _private(path, "contains a secret")
    for path in sorted(set(_plugin_paths(context.tables["plugins"], base))):
        yield from _writable(path, "is a source of code or settings")


def _private(path: Path, reason: str) -> Iterator[Finding]:
    mode = _mode(path)
    if mode is not None and mode & 0o077:
        yield Finding(
            Severity.HIGH,
            "file_permissions",
            str(path),
            f"{reason}, and other users have access to it (mode {mode:04o})",
            f"chmod {'700' if path.is_dir() else '600'} {path}",
        )


def _writable(path: Path, reason: str) -> Iterator[Finding]:
    mode = _mode(path)
    # The sticky bit of a folder prevents replacing the files of another user, but not adding files.
    if mode is not None and mode & 0o022:
        yield Finding(
            Severity.CRITICAL if mode & 0o002 else Severity.MEDIUM,
            "file_permissions",
            str(path),
            f"{reason}, and {'every user' if mode & 0o002 else 'its group'} can write to it (mode {mode:04o})",
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


def _plugin_paths(plugins: dict[str, Any], base: Path) -> Iterator[Path]:
    for table in plugins.values():
        for name, value in table.items():
            if name in _PATH_NAMES and isinstance(value, str) and value:
                yield base / Path(value).expanduser()
