"""Finds the agents of a drop-in folder, and the files of each. Nothing is imported.

The layout determines the ids: `SampleAgent/agent.py` is `SampleAgent`, `labs/Research/agent.py` is `labs/Research`,
`quick.py` is `quick`.
"""

import itertools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from gateway_core.catalog.ignored_files import is_ignored_file
from gateway_core.errors import DiscoveryError, GatewayError

AGENT_FILES = ("agent.py", "__init__.py")
"""Files that make a folder an agent. The first existing one is imported."""
SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages", "dist", "build"}
)
SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|setup|__init__|__main__)\.py")
MAX_DEPTH = 8
MAX_SOURCE_BYTES = 10 * 1024 * 1024
MAX_FILES = 5000
_USES_THE_SDK = re.compile(rb"^\s*(?:from|import)\s+agents\b", re.MULTILINE)


@frozen
class FoundAgent:
    """An agent in a drop-in folder."""

    id: str
    file: Path
    """The file to import."""
    folder: Path | None
    """The agent's folder; `None` for a single file."""


def find_agents(root: Path, report: Callable[[GatewayError], None]) -> list[FoundAgent]:
    """Return the agents of a drop-in folder, sorted by id.

    Args:
        root: The folder; it may be missing.
        report: Called with an error for each file or folder that is rejected.
    """
    return sorted(_Search(root.resolve(), report).agents(), key=lambda agent: agent.id.casefold())


def agent_files(place: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield a file, or all files of an agent's folder in order, each with its status; `None` if it cannot be read."""
    if os.path.isdir(place):
        return itertools.islice(_files_below(str(place)), MAX_FILES)
    return iter([(str(place), _status(place))])


class _Search:
    def __init__(self, root: Path, report: Callable[[GatewayError], None]) -> None:
        self._root = root
        self._report = report

    def agents(self) -> Iterator[FoundAgent]:
        if not self._root.is_dir():
            return
        package_file = self._root / "__init__.py"
        if package_file.exists():
            self._reject(
                package_file,
                "this file can make the folder shadow the SDK's package `agents`",
                "delete the file; the gateway does not need it",
            )
        yield from self._walk(self._root, 0)

    def _walk(self, folder: Path, depth: int) -> Iterator[FoundAgent]:
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            self._reject(folder, f"could not be read: {error.strerror}")
            return
        for path in children:
            if path.name.startswith((".", "_")) or not self._is_inside(path) or _leads_back(path):
                continue
            if os.path.isdir(path):
                if path.name in SKIPPED_FOLDERS:
                    if os.path.isfile(path / "agent.py"):
                        self._reject(path, f"folders named '{path.name}' are ignored", "rename the folder")
                    continue
                file = next((path / name for name in AGENT_FILES if os.path.exists(path / name)), None)
                if file is not None:
                    if self._is_importable(file):
                        yield FoundAgent(path.relative_to(self._root).as_posix(), file, path)
                elif depth < MAX_DEPTH:
                    yield from self._walk(path, depth + 1)
            elif self._is_single_file_agent(path, depth):
                yield FoundAgent(path.relative_to(self._root).with_suffix("").as_posix(), path, None)

    def _is_single_file_agent(self, path: Path, depth: int) -> bool:
        if path.suffix != ".py" or SKIPPED_FILES.fullmatch(path.name) or not self._is_importable(path):
            return False
        # Below the top level, a file may be a helper: it is an agent only if it imports the SDK.
        return depth == 0 or bool(_USES_THE_SDK.search(path.read_bytes()))

    def _is_inside(self, path: Path) -> bool:
        if path.is_symlink() and not path.resolve().is_relative_to(self._root):
            self._reject(path, "symbolic link to a target outside the folder", "copy the target", is_agent=True)
            return False
        return True

    def _is_importable(self, file: Path) -> bool:
        try:
            status = file.stat()
            if not self._is_inside(file):
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
        self._reject(file, problem, is_agent=True)
        return False

    def _reject(self, path: Path, problem: str, hint: str | None = None, *, is_agent: bool = False) -> None:
        error = DiscoveryError(problem, source=str(path), hint=hint)
        if is_agent:
            agent = path.parent if path.name in AGENT_FILES else path.with_suffix("")
            error.agent_id = agent.relative_to(self._root).as_posix()
        self._report(error)


def _leads_back(path: Path) -> bool:
    """Whether a path is a link to a folder that contains it, below which everything would be found again."""
    return path.is_symlink() and os.path.realpath(path) in {os.path.realpath(folder) for folder in path.parents}


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
