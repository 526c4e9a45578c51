"""Which agents lie in a folder, and what is each made of?

Reads files and imports nothing. The layout decides the ids: `SampleAgent/agent.py` is `SampleAgent`,
`labs/Research/agent.py` is `labs/Research`, `quick.py` is `quick`.
"""

import hashlib
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from gateway_core import DiscoveryError, GatewayError

AGENT_FILES = ("agent.py", "__init__.py")
"""What makes a folder an agent; the first one there is imported."""
SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages", "dist", "build"}
)
SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|setup|__init__|__main__)\.py")
MAX_DEPTH = 8
MAX_SOURCE_BYTES = 10 * 1024 * 1024
MAX_FILES = 5000
# Contents of larger files (models, databases) are not read at each scan: size and time stand for them.
_READ_LIMIT = 1024 * 1024
_USES_THE_SDK = re.compile(rb"^\s*(?:from|import)\s+agents\b", re.MULTILINE)

Report = Callable[[GatewayError], None]


@frozen
class FoundAgent:
    """An agent in the folder."""

    id: str
    file: Path
    """What to import."""
    folder: Path | None
    """The folder that is its own; none for a single file."""
    digest: str


class Scanner:
    """Scans one folder again and again, and reads only files that changed since.

    Args:
        root: The drop-in folder.
        report: Told of what cannot be offered.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self._root = root
        self._report = report
        self._hashes: dict[Path, tuple[tuple[int, int, int], bytes]] = {}

    def scan(self) -> list[FoundAgent]:
        """All agents, sorted by id."""
        if not self._root.is_dir():
            return []
        root = self._root.resolve()
        if (root / "__init__.py").exists():
            self._report(
                DiscoveryError(
                    "this file can make the folder hide the SDK's own package `agents`",
                    source=str(root / "__init__.py"),
                    hint="delete it; the gateway does not need it",
                )
            )
        shared = self._shared_digests(root)
        seen: set[Path] = set()
        found = [
            FoundAgent(agent_id, file, folder, self._digest(file, folder, shared, seen))
            for agent_id, file, folder in self._walk(root, root, 0)
        ]
        self._hashes = {path: value for path, value in self._hashes.items() if path in seen}
        return sorted(found, key=lambda agent: agent.id.casefold())

    def _walk(self, folder: Path, root: Path, depth: int) -> Iterator[tuple[str, Path, Path | None]]:
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            self._report(DiscoveryError(f"cannot be read: {error.strerror}", source=str(folder)))
            return
        for path in children:
            if path.name.startswith((".", "_")) or not self._inside(path, root):
                continue
            if path.is_dir():
                if path.name in SKIPPED_FOLDERS:
                    continue
                agent = next((path / name for name in AGENT_FILES if (path / name).exists()), None)
                if agent is not None:
                    if self._importable(agent, root):
                        yield path.relative_to(root).as_posix(), agent, path
                elif depth < MAX_DEPTH:
                    yield from self._walk(path, root, depth + 1)
            elif self._is_single_file_agent(path, root, depth):
                yield path.relative_to(root).with_suffix("").as_posix(), path, None

    def _is_single_file_agent(self, path: Path, root: Path, depth: int) -> bool:
        if path.suffix != ".py" or SKIPPED_FILES.fullmatch(path.name) or not self._importable(path, root):
            return False
        # Below the top a file may just as well be a helper: it counts when it uses the SDK.
        return depth == 0 or bool(_USES_THE_SDK.search(path.read_bytes()))

    def _inside(self, path: Path, root: Path) -> bool:
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            self._report(
                DiscoveryError("is a link that leaves the folder", source=str(path), hint="copy what it points to")
            )
            return False
        return True

    def _importable(self, file: Path, root: Path) -> bool:
        try:
            status = file.stat()
            if not self._inside(file, root):
                return False
            if not stat.S_ISREG(status.st_mode):
                problem = "is no regular file"
            elif status.st_size > MAX_SOURCE_BYTES:
                problem = f"is larger than {MAX_SOURCE_BYTES} bytes"
            else:
                with file.open("rb"):
                    return True
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        self._report(DiscoveryError(problem, source=str(file)))
        return False

    def _shared_digests(self, root: Path) -> dict[bytes, bytes]:
        """What agents may share, such as `_shared/`: a change of it changes the agents that mention its name."""
        seen: set[Path] = set()
        return {
            path.stem.encode(): self._hash_all(path if path.is_dir() else path.parent, [path], seen)
            for path in sorted(root.iterdir())
            if path.name.startswith("_")
            and path.name not in SKIPPED_FOLDERS
            and self._inside(path, root)
            and (path.is_dir() or path.suffix == ".py")
        }

    def _digest(self, file: Path, folder: Path | None, shared: dict[bytes, bytes], seen: set[Path]) -> str:
        files = list(_files_below(folder)) if folder is not None else [file]
        digest = hashlib.sha256(self._hash_all(folder or file.parent, files, seen))
        sources = b"".join(path.read_bytes() for path in files if path.suffix == ".py") if shared else b""
        for name, value in shared.items():
            if name in sources:
                digest.update(value)
        return digest.hexdigest()

    def _hash_all(self, base: Path, files: list[Path], seen: set[Path]) -> bytes:
        digest = hashlib.sha256()
        expanded = [f for path in files for f in (_files_below(path) if path.is_dir() else (path,))]
        for path in expanded:
            try:
                content = self._hash(path, seen)
            except OSError:  # gone, or unreadable: both change the digest when they change
                content = b"unreadable"
            digest.update(str(path.relative_to(base)).encode("utf-8", "surrogateescape") + b"\0" + content)
        return digest.digest()

    def _hash(self, path: Path, seen: set[Path]) -> bytes:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        seen.add(path)
        known = self._hashes.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        content = path.read_bytes() if status.st_size <= _READ_LIMIT else repr(stamp).encode()
        value = hashlib.sha256(content).digest()
        self._hashes[path] = (stamp, value)
        return value


def _files_below(folder: Path) -> Iterator[Path]:
    count = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in SKIPPED_FOLDERS for part in parts) or not path.is_file():
            continue
        count += 1
        if count > MAX_FILES:
            return
        yield path
