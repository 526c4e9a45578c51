"""Computes a digest of the files of each agent in a folder, to detect which agents changed.

It reads files and does not import them. The core's `find_agents` finds the agents.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from gateway_core import DiscoveryError, FoundAgent, GatewayError, agent_files, find_agents, is_ignored_file

# Larger files (models, databases) are not read at each scan: the digest covers their size and time instead.
_READ_LIMIT = 1024 * 1024
_CLOCK_TICK_NS = 100_000_000
_PRIVATE_NAME = re.compile(rb"(?<!\w)_\w+")
_IMPORT = re.compile(rb"^[ \t]*(?:from|import)\b[^\n(;]*(?:\([^)]*\))?", re.MULTILINE)
_WORD = re.compile(rb"\w+")


class Scanner:
    """Scans a folder repeatedly, and reads only files that changed since the last scan.

    Args:
        root: The drop-in folder.
        report: Called with an error for each file or folder that is rejected.
    """

    def __init__(self, root: Path, report: Callable[[GatewayError], None]) -> None:
        self._root = root
        self._report = report
        self._known: dict[str, tuple[tuple[int, int, int], _Contents]] = {}

    def scan(self) -> dict[FoundAgent, str]:
        """Return the digest of each agent, sorted by id."""
        if not self._root.is_dir():
            return {}
        root = self._root.resolve()
        seen: set[str] = set()
        modules = _Modules(lambda path: self._contents(path if path.is_dir() else path.parent, path, seen))
        shared = {os.fsencode(path.stem): path for path in _importable(root, "_") if self._inside(path, root)}
        for path in shared.values():
            modules.contents(path)
        digests = {
            agent: self._digest(agent, modules, [*_above(agent, root), shared], seen)
            for agent in find_agents(self._root, self._report)
        }
        self._known = {path: value for path, value in self._known.items() if path in seen}
        return digests

    def _inside(self, path: Path, root: Path) -> bool:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            problem = "symbolic link to a target outside the folder"
            self._report(DiscoveryError(problem, source=str(path), hint="copy the target"))
            return False
        return True

    def _digest(
        self, agent: FoundAgent, modules: "_Modules", outside: Sequence[Mapping[bytes, Path]], seen: set[str]
    ) -> str:
        contents = self._contents(agent.folder or agent.file.parent, agent.folder or agent.file, seen)
        digest = hashlib.sha256(contents.digest)
        # A change of a module outside the agent's folder changes the agents that mention its name.
        for path in modules.mentioned(contents.mentions, outside):
            digest.update(modules.contents(path).digest)
        return digest.hexdigest()

    def _contents(self, base: Path, place: Path, seen: set[str]) -> "_Contents":
        digest, mentions, start = hashlib.sha256(), set[bytes](), len(str(base)) + 1
        for path, status in agent_files(place):
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
        mentions = _mentions(content) if path.endswith(".py") else frozenset[bytes]()
        value = _Contents(hashlib.sha256(content).digest(), mentions)
        # Two writes within one clock tick of the file system have the same stamp.
        if abs(time.time_ns() - status.st_mtime_ns) > _CLOCK_TICK_NS:
            self._known[path] = (stamp, value)
        return value


@frozen
class _Contents:
    """The digest of some files, and the names in them that may be those of modules outside the agent's folder."""

    digest: bytes
    mentions: frozenset[bytes]
    """Names in the source code that begin with `_`, and the words of import statements."""


_UNREADABLE = _Contents(b"unreadable", frozenset())


class _Modules:
    """The modules outside the agents' folders. Each is read once per scan, when an agent mentions it."""

    def __init__(self, read: Callable[[Path], _Contents]) -> None:
        self._read = read
        self._contents: dict[Path, _Contents] = {}

    def contents(self, path: Path) -> _Contents:
        if path not in self._contents:
            self._contents[path] = self._read(path)
        return self._contents[path]

    def mentioned(self, names: frozenset[bytes], places: Sequence[Mapping[bytes, Path]]) -> list[Path]:
        """Return the modules that are mentioned directly or indirectly, sorted.

        Args:
            names: The names that the agent mentions.
            places: The modules that it can import, by name.
        """
        found, new = set[Path](), names
        while new:
            reached = {place[name] for place in places for name in new & place.keys()} - found
            found |= reached
            new = frozenset[bytes]().union(*(self.contents(path).mentions for path in reached))
        return sorted(found)


def _above(agent: FoundAgent, root: Path) -> list[Mapping[bytes, Path]]:
    """Return the modules of each folder above an agent, up to but without the drop-in folder."""
    own = agent.folder or agent.file
    folders = [path for path in own.parents if path != root and path.is_relative_to(root)]
    places = [place for folder in folders for place in (folder, folder / "src") if place.is_dir()]
    return [{os.fsencode(path.stem): path for path in _importable(place) if path != own} for place in places]


def _importable(folder: Path, prefix: str = "") -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith(prefix))
    paths = [folder / name for name in names if name != "__pycache__" and not is_ignored_file(name)]
    return [path for path in paths if path.suffix == ".py" or path.is_dir()]


def _mentions(source: bytes) -> frozenset[bytes]:
    words = (name for statement in _IMPORT.findall(source) for name in _WORD.findall(statement))
    return frozenset([*_PRIVATE_NAME.findall(source), *words])
