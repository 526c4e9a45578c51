"""Scans a folder for agents, and computes a digest of the files of each.

It reads files and does not import them. The layout determines the ids: `SampleAgent/agent.py` is `SampleAgent`,
`labs/Research/agent.py` is `labs/Research`, `quick.py` is `quick`.
"""

import hashlib
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from gateway_core import DiscoveryError, GatewayError, is_ignored_file

AGENT_FILES = ("agent.py", "__init__.py")
"""Files that make a folder an agent. The first existing one is imported."""
SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages", "dist", "build"}
)
SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|setup|__init__|__main__)\.py")
MAX_DEPTH = 8
MAX_SOURCE_BYTES = 10 * 1024 * 1024
MAX_FILES = 5000
# Larger files (models, databases) are not read at each scan: the digest covers their size and time instead.
_READ_LIMIT = 1024 * 1024
_CLOCK_TICK_NS = 100_000_000
_PRIVATE_NAME = re.compile(rb"(?<!\w)_\w+")
_USES_THE_SDK = re.compile(rb"^\s*(?:from|import)\s+agents\b", re.MULTILINE)

Report = Callable[[GatewayError], None]


@frozen
class FoundAgent:
    """An agent in the folder."""

    id: str
    file: Path
    """The file to import."""
    folder: Path | None
    """The agent's folder; `None` for a single file."""
    digest: str


class Scanner:
    """Scans a folder repeatedly, and reads only files that changed since the last scan.

    Args:
        root: The drop-in folder.
        report: Called with an error for each file or folder that is rejected.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self._root = root
        self._report = report
        self._known: dict[str, tuple[tuple[int, int, int], _Contents]] = {}

    def scan(self) -> list[FoundAgent]:
        """Return all agents, sorted by id."""
        if not self._root.is_dir():
            return []
        root = self._root.resolve()
        if (root / "__init__.py").exists():
            self._report(
                DiscoveryError(
                    "this file can make the folder shadow the SDK's package `agents`",
                    source=str(root / "__init__.py"),
                    hint="delete the file; the gateway does not need it",
                )
            )
        seen: set[str] = set()
        shared = self._shared(root, seen)
        found = [
            FoundAgent(agent_id, file, folder, self._digest(file, folder, shared, seen))
            for agent_id, file, folder in self._walk(root, root, 0)
        ]
        self._known = {path: value for path, value in self._known.items() if path in seen}
        return sorted(found, key=lambda agent: agent.id.casefold())

    def _walk(self, folder: Path, root: Path, depth: int) -> Iterator[tuple[str, Path, Path | None]]:
        try:
            with os.scandir(folder) as found:
                children = sorted(found, key=lambda child: child.name)
        except OSError as error:
            self._report(DiscoveryError(f"could not be read: {error.strerror}", source=str(folder)))
            return
        for child in children:
            if child.name.startswith((".", "_")):
                continue
            path = folder / child.name
            if child.is_symlink() and not self._inside(path, root):
                continue
            if child.is_dir():
                if child.name in SKIPPED_FOLDERS:
                    self._report_skipped(path)
                    continue
                agent = next((path / name for name in AGENT_FILES if os.path.exists(f"{child.path}/{name}")), None)
                if agent is not None:
                    if self._importable(agent, root):
                        yield path.relative_to(root).as_posix(), agent, path
                elif depth < MAX_DEPTH:
                    yield from self._walk(path, root, depth + 1)
            elif self._is_single_file_agent(path, root, depth):
                yield path.relative_to(root).with_suffix("").as_posix(), path, None

    def _report_skipped(self, folder: Path) -> None:
        """Report a folder that is ignored because of its name, although it contains an agent."""
        if (folder / "agent.py").is_file():
            self._report(
                DiscoveryError(
                    f"folders named '{folder.name}' are ignored", source=str(folder), hint="rename the folder"
                )
            )

    def _is_single_file_agent(self, path: Path, root: Path, depth: int) -> bool:
        if path.suffix != ".py" or SKIPPED_FILES.fullmatch(path.name) or not self._importable(path, root):
            return False
        # Below the top level, a file may be a helper: it is an agent only if it imports the SDK.
        return depth == 0 or bool(_USES_THE_SDK.search(path.read_bytes()))

    def _inside(self, path: Path, root: Path) -> bool:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            self._report(
                DiscoveryError("symbolic link to a target outside the folder", source=str(path), hint="copy the target")
            )
            return False
        return True

    def _importable(self, file: Path, root: Path) -> bool:
        try:
            status = file.stat()
            if not self._inside(file, root):
                return False
            if not stat.S_ISREG(status.st_mode):
                problem = "not a regular file"
            elif status.st_size > MAX_SOURCE_BYTES:
                problem = f"larger than {MAX_SOURCE_BYTES} bytes"
            else:
                with file.open("rb"):
                    return True
        except OSError as error:
            problem = f"could not be read: {error.strerror}"
        self._report(DiscoveryError(problem, source=str(file)))
        return False

    def _shared(self, root: Path, seen: set[str]) -> dict[bytes, bytes]:
        """Return the digests of shared modules, such as `_shared/`, by name, including the modules they mention."""
        modules = {
            path.stem.encode(): self._contents(path if path.is_dir() else path.parent, [path], seen)
            for path in sorted(path for path in root.iterdir() if path.name.startswith("_"))
            if path.name not in SKIPPED_FOLDERS and self._inside(path, root) and (path.is_dir() or path.suffix == ".py")
        }
        return {name: _combined_digest(_dependencies(name, modules), modules) for name in modules}

    def _digest(self, file: Path, folder: Path | None, shared: dict[bytes, bytes], seen: set[str]) -> str:
        contents = self._contents(folder or file.parent, [folder or file], seen)
        digest = hashlib.sha256(contents.digest)
        # A change of a shared module changes the agents that mention its name.
        for name in sorted(contents.mentions & shared.keys()) if shared else ():
            digest.update(shared[name])
        return digest.hexdigest()

    def _contents(self, base: Path, roots: list[Path], seen: set[str]) -> "_Contents":
        digest, mentions, start = hashlib.sha256(), set[bytes](), len(str(base)) + 1
        for path, status in (found for root in roots for found in _files(root)):
            content = self._content(path, status, seen)
            digest.update(path[start:].encode("utf-8", "surrogateescape") + b"\0" + content.digest)
            mentions |= content.mentions
        return _Contents(digest.digest(), frozenset(mentions))

    def _content(self, path: str, status: os.stat_result | None, seen: set[str]) -> "_Contents":
        if status is None:
            return _UNREADABLE
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        seen.add(path)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            content = Path(path).read_bytes() if status.st_size <= _READ_LIMIT else repr(stamp).encode()
        except OSError:  # removed or unreadable: the digest changes once it is readable again
            return _UNREADABLE
        mentions = _PRIVATE_NAME.findall(content) if path.endswith(".py") else ()
        value = _Contents(hashlib.sha256(content).digest(), frozenset(mentions))
        # Two writes within one clock tick of the file system have the same stamp.
        if abs(time.time_ns() - status.st_mtime_ns) > _CLOCK_TICK_NS:
            self._known[path] = (stamp, value)
        return value


@frozen
class _Contents:
    """The digest of some files, and the private names in them."""

    digest: bytes
    mentions: frozenset[bytes]
    """Names in the source code that begin with `_`."""


_UNREADABLE = _Contents(b"unreadable", frozenset())


def _dependencies(name: bytes, modules: dict[bytes, _Contents]) -> set[bytes]:
    """Return a shared module and all shared modules that it mentions, directly or indirectly."""
    reachable, new = set[bytes](), {name}
    while new:
        reachable |= new
        new = {found for one in new for found in modules[one].mentions & modules.keys()} - reachable
    return reachable


def _combined_digest(names: set[bytes], modules: dict[bytes, _Contents]) -> bytes:
    return hashlib.sha256(b"".join(modules[name].digest for name in sorted(names))).digest()


def _files(place: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield a file, or all files below a folder in order, each with its status; `None` if it cannot be read."""
    if os.path.isdir(place):
        return itertools.islice(_files_below(str(place)), MAX_FILES)
    return iter([(str(place), _status(place))])


def _files_below(folder: str) -> Iterator[tuple[str, os.stat_result | None]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in SKIPPED_FOLDERS or is_ignored_file(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path)
        elif entry.is_file():
            yield entry.path, _status(entry)


def _status(file: "Path | os.DirEntry[str]") -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None
