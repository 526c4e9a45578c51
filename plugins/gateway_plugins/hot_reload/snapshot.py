"""Looks at what is watched: which files are there, and the stamp of each.

A look reads no file and decides nothing. It is the only truth about what changed; the system's events only say when it
is worth to look.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from gateway_core import is_ignored_file

Stamp: TypeAlias = tuple[int, int, int, int]
"""Times of the last write and the last change of any kind (nanoseconds), size (bytes) and number of a file."""
Snapshot: TypeAlias = Mapping[str, Stamp]
"""By path; a file that cannot be looked at, such as a link that leads nowhere, is not there."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
# A mounted configuration map swaps this link, and shows no other change.
_SWAPPED_LINK = "..data"


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is never a reason to reload."""
    return name in SKIPPED_FOLDERS or (is_ignored_file(name) and name != _SWAPPED_LINK)


def take_snapshot(paths: Iterable[Path]) -> Snapshot:
    """All files at these paths and below them, as they are now. Blocking."""
    found: dict[str, Stamp] = {}
    for path in paths:
        if os.path.isdir(path):
            _look_below(str(path), found)
        elif (stamp := _stamp(str(path))) is not None:
            found[str(path)] = stamp
    return found


def update_snapshot(paths: Iterable[str]) -> Snapshot:
    """Some files, as they are now; those that are gone are left out. Blocking."""
    return {path: stamp for path in paths if (stamp := _stamp(path)) is not None}


def differing(before: Snapshot, after: Snapshot) -> list[str]:
    """The paths that are not the same in two looks."""
    return [path for path in {**before, **after} if before.get(path) != after.get(path)]


def _look_below(folder: str, found: dict[str, Stamp]) -> None:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    _look_below(entry.path, found)
                # What a link leads to is looked at, and a linked folder is not entered: it may lead back up.
                elif (stamp := _stamp(entry.path)) is not None:
                    found[entry.path] = stamp
    except OSError:  # gone meanwhile, or not ours to read
        return


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
