"""Finds agents in the other files of an agent's folder, for the diagnosis of a module that exports none.

It reads the files and does not import them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from gateway_core.catalog.agent_calls import created_class
from gateway_core.catalog.drop_in_folder import AGENT_FILES, agent_files
from gateway_core.catalog.safe_ast import parse

_MAX_NAMED = 4
_SDK = b"agents"


def how_to_export(source: str, preferred: tuple[str, ...]) -> str | None:
    """Return how the folder of a module can export one of the agents in its other files; `None` if they have none.

    Args:
        source: The module, which exports no agent.
        preferred: The names of variables that mark the agent to serve.
    """
    module = Path(source)
    if module.name not in AGENT_FILES or not module.is_file():
        return None
    found = {
        path.relative_to(module.parent): names
        for text, _ in agent_files(module.parent)
        if (path := Path(text)).suffix == ".py" and path != module and (names := _agents(path))
    }
    if not found:
        return None
    file = min(found, key=lambda path: (not {*found[path]} & {*preferred}, len(path.parts), str(path)))
    name = next((name for name in preferred if name in found[file]), found[file][-1])
    listed = ", ".join(path.as_posix() for path in [*found][:_MAX_NAMED]) + (" …" if len(found) > _MAX_NAMED else "")
    line = f"write `from .{'.'.join(file.with_suffix('').parts)} import {name}` into {module.name}"
    several = f", or delete {module.name}, so that each file is a model" if module.name == "__init__.py" else ""
    return f"{'these files have' if len(found) > 1 else 'this file has'} agents: {listed}; {line}{several}"


def _agents(file: Path) -> list[str]:
    """Return the names of variables at the top level of a file that are assigned an Agent."""
    try:
        content = file.read_bytes()
        return list(_assigned(parse(content))) if _SDK in content else []
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []


def _assigned(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and created_class(node.value) == "Agent":
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
