"""Which folders must be watched, so that nothing that happens to the given paths goes unnoticed?

A folder that is watched and removed, renamed or replaced sends no more events, and says nothing; so the folder above it
is watched for its name, and each has an identity by which a replaced one is found out. Nothing here watches.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

# File systems on which changes from elsewhere send no events: other machines' and hosts'.
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
    """What counts in it; everything in a recursive one."""
    identity: tuple[int, int]
    """Device and number: another folder of the same name is another place."""


def places(paths: Iterable[Path]) -> frozenset[WatchTarget]:
    """The folders to watch as things are now. Blocking."""
    whole: set[str] = set()
    names: dict[str, set[str]] = {}
    for path in {form for given in paths for form in (given.absolute(), given.resolve())}:
        if path.is_dir():
            whole.add(str(path.resolve()))
        above, name = _nearest(path)
        names.setdefault(str(above), set()).add(name)
    found = [WatchTarget(folder, True, frozenset(), identity) for folder in whole if (identity := _identity(folder))]
    found += [
        WatchTarget(folder, False, frozenset(wanted), identity)
        for folder, wanted in names.items()
        if (identity := _identity(folder))
    ]
    return frozenset(found)


def silent_file_system(folders: Iterable[str], table: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of file system, when one of the folders is on one that does not tell of changes from elsewhere."""
    try:
        mounts = [_mount(line) for line in table.read_text().splitlines()]
    except OSError:
        return None
    for folder in folders:
        on = [(point, kind) for point, kind in mounts if Path(folder).is_relative_to(point)]
        # Of two mounts on one point the later one counts.
        kind = max(reversed(on), key=lambda mount: len(mount[0]), default=("", ""))[1]
        if kind in _SILENT:
            return kind
    return None


def _mount(line: str) -> tuple[str, str]:
    """Where something is mounted and the kind of its file system, of a line as proc(5) describes it."""
    before, _, after = line.partition(" - ")
    return before.split()[4].encode().decode("unicode_escape"), after.split()[0]


def _nearest(path: Path) -> tuple[Path, str]:
    """The nearest folder above a path that is there, and the name in it that leads to the path."""
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
