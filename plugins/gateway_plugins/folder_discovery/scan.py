"""Computes a digest of the files of each agent in a folder, to detect which agents changed.

It reads files and does not import them. The core's `find_agents` finds the agents.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from gateway_core import DiscoveryError, FoundAgent, GatewayError, agent_files, find_agents

# Larger files (models, databases) are not read at each scan: the digest covers their size and time instead.
_READ_LIMIT = 1024 * 1024
_CLOCK_TICK_NS = 100_000_000
_PRIVATE_NAME = re.compile(rb"(?<!\w)_\w+")


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
        seen: set[str] = set()
        shared = self._shared(self._root.resolve(), seen)
        digests = {agent: self._digest(agent, shared, seen) for agent in find_agents(self._root, self._report)}
        self._known = {path: value for path, value in self._known.items() if path in seen}
        return digests

    def _shared(self, root: Path, seen: set[str]) -> dict[bytes, bytes]:
        """Return the digests of shared modules, such as `_shared/`, by name, including the modules they mention."""
        modules = {
            path.stem.encode(): self._contents(path if path.is_dir() else path.parent, path, seen)
            for path in sorted(path for path in root.iterdir() if path.name.startswith("_"))
            if path.name != "__pycache__" and self._inside(path, root) and (path.is_dir() or path.suffix == ".py")
        }
        return {name: _combined_digest(_dependencies(name, modules), modules) for name in modules}

    def _inside(self, path: Path, root: Path) -> bool:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            problem = "symbolic link to a target outside the folder"
            self._report(DiscoveryError(problem, source=str(path), hint="copy the target"))
            return False
        return True

    def _digest(self, agent: FoundAgent, shared: dict[bytes, bytes], seen: set[str]) -> str:
        contents = self._contents(agent.folder or agent.file.parent, agent.folder or agent.file, seen)
        digest = hashlib.sha256(contents.digest)
        # A change of a shared module changes the agents that mention its name.
        for name in sorted(contents.mentions & shared.keys()) if shared else ():
            digest.update(shared[name])
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
