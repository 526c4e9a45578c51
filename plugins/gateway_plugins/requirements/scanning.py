"""Which agents lie in a drop-in folder, for the command: their ids, and what each declares.

It imports nothing, and follows the layout that the gateway serves: a folder with an `agent.py`, or a single file.
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
    """What each agent in the folder declares, also those that declare nothing, sorted by id.

    Raises:
        OSError: A folder cannot be read.
    """
    root = root.resolve()
    found = [
        read_declaration(file.relative_to(root).with_suffix("").as_posix(), file, None)
        if folder is None
        else read_declaration(folder.relative_to(root).as_posix(), file, folder)
        for file, folder in _walk(root, root, 0)
    ]
    return sorted(found, key=lambda declaration: declaration.agent_id.casefold())


def _walk(folder: Path, root: Path, depth: int) -> Iterator[tuple[Path, Path | None]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or not path.resolve().is_relative_to(root):
            continue
        if path.is_dir():
            if path.name in _SKIPPED_FOLDERS:
                continue
            agent = next((path / name for name in _AGENT_FILES if (path / name).is_file()), None)
            if agent is not None:
                yield agent, path
            elif depth < _MAX_DEPTH:
                yield from _walk(path, root, depth + 1)
        elif _is_single_file_agent(path, depth):
            yield path, None


def _is_single_file_agent(path: Path, depth: int) -> bool:
    if path.suffix != ".py" or not path.is_file() or _SKIPPED_FILES.fullmatch(path.name):
        return False
    # Below the top a file may just as well be a helper: it counts when it uses the SDK.
    return depth == 0 or bool(_USES_THE_SDK.search(path.read_bytes()))
