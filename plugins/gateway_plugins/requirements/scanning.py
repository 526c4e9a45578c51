"""Finds the agents of a drop-in folder for the command, without an import.

It follows the layout that the gateway serves: a folder with an `agent.py`, or a single file.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from gateway_plugins.requirements.declarations import Declaration
from gateway_plugins.requirements.parsing import read_declaration

_AGENT_FILES = ("agent.py", "__init__.py")
_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "venv", "env", "node_modules", "tests", "test", "site-packages", "dist", "build"}
)
_SKIPPED_FILES = re.compile(r"(test_.*|.*_test|conftest|setup|__init__|__main__)\.py")
_USES_THE_SDK = re.compile(rb"^\s*(?:from|import)\s+agents\b", re.MULTILINE)
_MAX_DEPTH = 8


def scan(root: Path) -> list[Declaration]:
    """Reads what each agent in the folder declares, including those that declare nothing, sorted by id.

    Raises:
        OSError: A folder or a file cannot be read.
    """
    root = root.resolve()
    found = [
        read_declaration((folder or file.with_suffix("")).relative_to(root).as_posix(), file, folder)
        for file, folder in _walk(root, root, 0)
    ]
    return sorted(found, key=lambda declaration: declaration.agent_id.casefold())


def _walk(folder: Path, root: Path, depth: int) -> Iterator[tuple[Path, Path | None]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or not path.resolve().is_relative_to(root):
            continue
        if path.is_dir() and path.name not in _SKIPPED_FOLDERS:
            agent = next((path / name for name in _AGENT_FILES if (path / name).is_file()), None)
            if agent is not None:
                yield agent, path
            elif depth < _MAX_DEPTH:
                yield from _walk(path, root, depth + 1)
        elif path.suffix != ".py" or not path.is_file() or _SKIPPED_FILES.fullmatch(path.name):
            continue
        elif depth == 0 or _USES_THE_SDK.search(path.read_bytes()):
            # Below the top a file may be a helper: it counts when it uses the SDK.
            yield path, None
