"""Determines the folders to watch, so that every change of the given paths causes an event.

A watched folder that is removed, renamed or replaced silently sends no more events. Therefore its parent is watched for
its name, and each target has an identity that reveals a replacement. This module only computes the targets.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

# File systems that send no events for changes made by other machines or by the host.
_SILENT = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "virtiofs", "vboxsf", "drvfs",
        "prl_fs", "fakeowner", "osxfs", "grpcfuse", "fuse.grpcfuse", "fuse.osxfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
    }
)  # fmt: skip


@frozen
class WatchTarget:
    """A folder to watch."""

    folder: str
    recursive: bool
    names: frozenset[str]
    """The names in the folder that count; ignored for a recursive target, in which everything counts."""
    identity: tuple[int, int]
    """Device and inode, to detect a folder that was replaced by another one of the same name."""


def watch_targets(paths: Iterable[Path]) -> frozenset[WatchTarget]:
    """Return the folders to watch for the paths, based on the current file system. Blocking."""
    whole: set[str] = set()
    names: dict[str, set[str]] = {}
    for path in {form for given in paths for form in (given.absolute(), given.resolve())}:
        if path.is_dir():
            whole.add(str(path.resolve()))
        above, name = _nearest_folder(path)
        names.setdefault(str(above), set()).add(name)
    found = [WatchTarget(folder, True, frozenset(), identity) for folder in whole if (identity := _identity(folder))]
    found += [
        WatchTarget(folder, False, frozenset(wanted), identity)
        for folder, wanted in names.items()
        if (identity := _identity(folder))
    ]
    return frozenset(found)


def silent_file_system(folders: Iterable[str], table: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the first file system of a folder that sends no events for remote changes, or `None`."""
    try:
        mounts = [_mount(line) for line in table.read_text().splitlines()]
    except OSError:
        return None
    for folder in folders:
        on = [(point, kind) for point, kind in mounts if Path(folder).is_relative_to(point)]
        # If a mount point has several mounts, the last one is effective.
        kind = max(reversed(on), key=lambda mount: len(mount[0]), default=("", ""))[1]
        if kind in _SILENT:
            return kind
    return None


def _mount(line: str) -> tuple[str, str]:
    """Return the mount point and the file system type from a line of mountinfo, see proc(5)."""
    before, _, after = line.partition(" - ")
    return before.split()[4].encode().decode("unicode_escape"), after.split()[0]


def _nearest_folder(path: Path) -> tuple[Path, str]:
    """Return the nearest existing folder above a path, and the name in it that leads to the path."""
    above, name = path.parent, path.name
    while not above.is_dir() and above != above.parent:
        above, name = above.parent, above.name
    return above, name


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
