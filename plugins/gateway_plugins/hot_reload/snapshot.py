"""Takes snapshots of the watched paths: the existing files, and the stamp of each.

File contents are not read. Only snapshots determine whether something changed; events only trigger them.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from gateway_core import is_ignored_file

Stamp: TypeAlias = tuple[int, int, int, int]
"""Modification and change time (nanoseconds), size (bytes) and inode of a file."""
Snapshot: TypeAlias = Mapping[str, Stamp]
"""Stamps by path. Files that cannot be read with `stat`, such as broken links, are missing."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
# Kubernetes updates a mounted ConfigMap by replacing this link; nothing else changes.
_SWAPPED_LINK = "..data"


def is_ignored(name: str) -> bool:
    """Whether changes of a file or folder with this name are ignored."""
    return name in SKIPPED_FOLDERS or (is_ignored_file(name) and name != _SWAPPED_LINK)


def take_snapshot(paths: Iterable[Path]) -> Snapshot:
    """Take a snapshot of all files at and below the paths. Blocking."""
    found: dict[str, Stamp] = {}
    for path in paths:
        if os.path.isdir(path):
            _scan_folder(str(path), found)
        elif (stamp := _stamp(str(path))) is not None:
            found[str(path)] = stamp
    return found


def update_snapshot(paths: Iterable[str]) -> Snapshot:
    """Take a snapshot of single files. Missing files are omitted. Blocking."""
    return {path: stamp for path in paths if (stamp := _stamp(path)) is not None}


def differing(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths that differ between two snapshots."""
    return [path for path in {**before, **after} if before.get(path) != after.get(path)]


def _scan_folder(folder: str, found: dict[str, Stamp]) -> None:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    _scan_folder(entry.path, found)
                # The target of a link is included, but linked folders are not entered: they may form a cycle.
                elif (stamp := _stamp(entry.path)) is not None:
                    found[entry.path] = stamp
    except OSError:  # removed in the meantime, or permission denied
        return


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
