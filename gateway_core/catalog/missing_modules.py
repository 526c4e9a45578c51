"""Explains a failed import: which file or distribution would provide the module, and how to get it.

It reads the file with the import statement and lists the agent's folder and does not import a module.
"""

import ast
import importlib.metadata
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from gateway_core.catalog.distributions import distribution_of
from gateway_core.catalog.drop_in_folder import AGENT_FILES, SKIPPED_FOLDERS
from gateway_core.catalog.import_scope import NEVER_SIBLINGS, is_installed
from gateway_core.catalog.module_isolation import is_private, public_names
from gateway_core.catalog.safe_ast import parse

_MAX_FILES = 5000


def explain_import(error: ImportError, source: str, file: str | None, line: int | None) -> tuple[str, str, str | None]:
    """Return the error code, the message and the hint for an import that failed.

    Args:
        error: The exception.
        source: The location of the agent.
        file: The file of the agent with the statement that failed.
        line: Its line, counted from 1.
    """
    name = public_names(error.name or "")
    package = name.partition(".")[0]
    statement = _statement(file, line)
    modules = _modules(statement, package, name)
    folder = Path(source).parent if Path(source).is_file() else None
    private = is_private((error.name or "").partition(".")[0])
    missing = isinstance(error, ModuleNotFoundError)
    if folder is not None and (missing or package in NEVER_SIBLINGS):
        if (link := _link(folder, name)) is not None:
            if not link.exists():
                return (
                    "import",
                    f"{link} is a symbolic link to a file that does not exist",
                    "create it, or fix the link",
                )
            return "import", f"{link} is a symbolic link to a target outside the folder of agents", "copy the target"
        is_from = isinstance(statement, ast.ImportFrom)
        if (cure := _own(folder, Path(source), _requested(statement, name), is_from=is_from)) is not None:
            return "import", f"the module '{name}' was not found", cure
    if not missing and (private or error.path or distribution_of(modules) is None):
        return "import", f"{type(error).__name__}: {public_names(str(error))}", None
    if private:
        return "import", f"the agent's folder has no module '{name}'", "create it, or fix the import"
    if not package:
        return "import", f"{type(error).__name__}: {public_names(str(error))}", None
    message = f"the module '{name if missing else modules[0]}' is not installed"
    versions = _installed_versions(package)
    if versions is None and _is_entry_point(error):
        return "dependency", message, "repair or remove the package whose entry point names it"
    if versions is None and (known := distribution_of(modules)) and _version(known) is None:
        return "dependency", message, f"pip install {known}"
    if versions is not None:
        hint = "install the version that the module was written for, or change the import"
        return "dependency", f"the installed {versions} has no module '{name}'", hint
    look = "look up which distribution provides it, and"
    if folder is None:
        return (
            "dependency",
            message,
            f"{look} install that; if it is part of the agent's own package, repair the package",
        )
    own = f"if it is your own module, put {package}.py into the agent's folder"
    return "dependency", message, f"{look} add that to requirements.txt; {own}"


def _installed_versions(package: str) -> str | None:
    """Return the distributions that provide a package, with their versions; `None` if it is not installed.

    Another distribution may have the package's name, or provide a package of the same name, so neither is a cure for a
    missing module of it. A namespace package, which several distributions share, does not count.
    """
    known = dict.fromkeys(packages_distributions().get(package, ()))
    if is_installed(package) or (known and find_spec(package) is None):
        return ", ".join(f"{each} {_version(each) or ''}".rstrip() for each in known) or f"package {package}"
    return None


def _is_entry_point(error: ImportError) -> bool:
    """Whether the missing module is the one that an entry point names, not one that a module imports."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    importing = [Path(file).parts[-3:] for file in files if not file.startswith("<frozen importlib")]
    return importing[-1:] == [Path(importlib.__file__).parts[-3:]] and importing[-2:-1] == [
        Path(importlib.metadata.__file__).parts[-3:]
    ]


def _own(folder: Path, source: Path, name: str, *, is_from: bool) -> str | None:
    """Return how to import a file or folder of the agent's folder that answers to the name of a missing module."""
    package, _, rest = name.partition(".")
    file = folder / f"{package}.py"
    is_module = file.is_file() or _has_modules(folder / package)
    if source.name not in AGENT_FILES:
        target = file.name if file.is_file() else f"{package}/"
        move = f"move it to {source.stem}/agent.py, and {target} to {source.stem}/"
        return f"a single-file agent cannot import other files: {move}" if is_module else None
    if package in NEVER_SIBLINGS:
        written = _written([package, *filter(None, rest.split("."))], is_from=is_from, dots=".")
        return f"`{package}` is also the name of an installed package; write `{written}`" if is_module else None
    if package == folder.name and rest and distribution_of([name]) is None:
        return f"the folder {package} has no module '{rest}'; create it, or fix the import"
    for place in _below(folder):
        parts = place.relative_to(folder).with_suffix("").parts
        if parts[-1].casefold() == package.casefold() and parts != (package,):
            path = place.relative_to(folder).as_posix()
            if not all(part.isidentifier() for part in parts):
                return f"move {path} into the folder {folder.name}"
            return f"write `{_written([*parts, *filter(None, rest.split('.'))], is_from=is_from)}` to import {path}"
    return None


def _written(parts: Sequence[str], *, is_from: bool, dots: str = "") -> str:
    if is_from:
        return f"from {dots}{'.'.join(parts)} import …"
    return f"from {dots}{'.'.join(parts[:-1])} import {parts[-1]}" if dots or parts[:-1] else f"import {parts[-1]}"


def _below(folder: Path) -> Iterator[Path]:
    """Yield the Python files of a folder, and its folders that contain some; those at the top first."""
    waiting, seen = [folder], 0
    while waiting and seen < _MAX_FILES:
        for path in sorted(waiting.pop(0).iterdir()):
            seen += 1
            if path.name.startswith(".") or path.name in SKIPPED_FOLDERS:
                continue
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
                if _has_modules(path):
                    yield path
            elif path.suffix == ".py":
                yield path


def _has_modules(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.py"))


def _link(folder: Path, name: str) -> Path | None:
    """Return the link out of the drop-in folder, or to a missing file, that a module's name leads to."""
    place = folder
    for part in name.split("."):
        place = place / part
        for path in (place, place.with_name(f"{part}.py")):
            if path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(folder.parent.resolve())):
                return path
    return None


def _statement(file: str | None, line: int | None) -> ast.stmt | None:
    try:
        tree = parse(Path(file or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    return next((node for node in imports if node.lineno <= (line or 0) <= (node.end_lineno or node.lineno)), None)


def _modules(statement: ast.stmt | None, package: str, name: str) -> list[str]:
    """Return the modules that a statement may import from a package, the most specific first."""
    found: list[str] = []
    if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
        found = [f"{statement.module}.{alias.name}" for alias in statement.names]
    elif isinstance(statement, ast.Import):
        found = [alias.name for alias in statement.names]
    return [*(module for module in found if module.partition(".")[0] == package), name]


def _requested(statement: ast.stmt | None, name: str) -> str:
    """Return the module that a statement requests, of which `name` may be only the first part that is missing."""
    if isinstance(statement, ast.ImportFrom) and not statement.level:
        modules = [statement.module or ""]
    else:
        modules = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
    return next((module for module in modules if module.startswith(f"{name}.")), name)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
