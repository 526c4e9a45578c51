"""Loads a user's module by path, under a private package name, so that its imports touch nobody else's.

Nothing goes on `sys.path`. The module's own helpers are found beside it, however it imports them: `from .tools import
x`, `from tools import x`, `import helpers`, also lazily, long after the load. Two modules may both have a `tools.py`.
It knows nothing of agents, and does not look at what a module exports.

How: one finder on `sys.meta_path` answers for the private packages only, and the loader rewrites absolute imports of
siblings to the private package while it compiles. Bytecode is neither read nor written. `importlib.import_module` with
a sibling's bare name is not rewritten, and fails as it would in any package.
"""

import ast
import importlib
import importlib.util
import itertools
import re
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.resources.abc import TraversableResources
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from attrs import field, frozen

from gateway_core.catalog.safe_ast import compile_tree, parse

# A sibling may hide an installed package, as it does for a script, but never these: a folder of agents is often called
# `agents`, and the SDK's own package must stay what `import agents` means.
NEVER_SIBLINGS = frozenset({"agents", "openai", "gateway_core", "__main__"}) | sys.stdlib_module_names

_PREFIX = "gateway_agent_"
_numbers = itertools.count(1)
_installing = threading.Lock()


@frozen
class IsolatedModule:
    """A module that was loaded, with everything it imported from its own folder."""

    module: ModuleType = field(repr=False)
    package: str
    """The private name; all its modules are called `package.…` in `sys.modules`."""

    @property
    def files(self) -> frozenset[Path]:
        """The source files that were imported so far, lazily imported and shared ones too; empty after `unload`."""
        found = (getattr(sys.modules.get(name), "__file__", None) for name in _names(self.package))
        return frozenset(Path(file) for file in found if file)

    def unload(self) -> None:
        """Forget it. Code that still runs goes on, but can no longer import its siblings: call it when none does."""
        _forget(self.package)


@frozen
class _Package:
    name: str
    file: Path
    folder: Path | None
    shared: Path | None

    @property
    def main(self) -> str:
        """What the file is called below the package; empty when it is the package itself."""
        return "" if self.file.name == "__init__.py" else self.file.stem.replace(".", "_")

    def find(self, parts: Sequence[str]) -> Path | None:
        """The file or folder of a sibling; the module's own folder wins over the shared one."""
        if not parts:
            return None
        for base in self._bases(parts[0]):
            place = base.joinpath(*parts)
            if (place / "__init__.py").is_file():
                return place
            if (source := place.with_name(f"{place.name}.py")).is_file():
                return source
            if place.is_dir() and any(place.rglob("*.py")):
                return place
        return None

    def _bases(self, first: str) -> list[Path]:
        own = [self.folder] if self.folder is not None else []
        return [*own, self.shared] if self.shared is not None and first.startswith("_") else own


class _Finder(MetaPathFinder):
    """Answers for private packages, and for nothing else."""

    def __init__(self) -> None:
        self.packages: dict[str, _Package] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        first, *parts = fullname.split(".")
        package = self.packages.get(first)
        if package is None:
            return None
        if package.main and parts == [package.main]:
            return _spec(fullname, package.file, package)
        place = package.file.parent if not parts else package.find(parts)
        if place is None:
            return None
        if not parts and package.main:
            return _folder_spec(fullname, package.folder or place, importable=package.folder is not None)
        if place.is_dir() and not (place / "__init__.py").is_file():
            return _folder_spec(fullname, place)
        return _spec(fullname, place, package)


_FINDER = _Finder()


class _Loader(SourceFileLoader):
    """Compiles from source each time, with imports of siblings made private."""

    def __init__(self, fullname: str, path: str, package: _Package) -> None:
        super().__init__(fullname, path)
        self._package = package

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        return compile_tree(_PrivateImports(self._package).visit(parse(data, path)), path)


class _FolderLoader(Loader, TraversableResources):
    """A folder without an `__init__.py`: no code to run, but data files, which `importlib.resources` asks it for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        pass

    def get_resource_reader(self, fullname: str) -> TraversableResources:
        return self

    def files(self) -> Path:
        return self._folder


class _PrivateImports(ast.NodeTransformer):
    """Rewrites absolute imports of siblings to absolute imports of the private package. Line numbers stay."""

    def __init__(self, package: _Package) -> None:
        self._package = package

    def visit(self, node: ast.AST) -> Any:
        # No import is below an expression, and a sum of 600 terms is deeper than a visitor can follow.
        return node if isinstance(node, ast.expr) else super().visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level == 0 and node.module and self._is_sibling(node.module):
            node.module = f"{self._package.name}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        if not any(self._is_sibling(alias.name) for alias in node.names):
            return node
        statements = [statement for alias in node.names for statement in self._import(alias)]
        return [ast.fix_missing_locations(ast.copy_location(statement, node)) for statement in statements]

    def _import(self, alias: ast.alias) -> list[ast.stmt]:
        if not self._is_sibling(alias.name):
            return [ast.Import([alias])]
        private = f"{self._package.name}.{alias.name}"
        first = alias.name.partition(".")[0]
        if alias.asname or first == alias.name:
            return [ast.Import([ast.alias(private, alias.asname or first)])]
        # `import sub.deep` imports the whole path, and binds its first part only.
        whole = ast.Expr(ast.Call(ast.Name("__import__", ast.Load()), [ast.Constant(private)], []))
        return [whole, ast.Import([ast.alias(f"{self._package.name}.{first}", first)])]

    def _is_sibling(self, name: str) -> bool:
        first = name.partition(".")[0]
        return first not in NEVER_SIBLINGS and self._package.find([first]) is not None


def load_isolated(file: Path, *, folder: Path | None, name: str, shared: Path | None = None) -> IsolatedModule:
    """Import a file under a new private name. Blocking; runs the file's code.

    Args:
        file: What to import; an `__init__.py` is imported as the package that it is.
        folder: Whose files are its siblings; without it, it has none.
        name: Readable part of the private name, such as an agent's id.
        shared: A folder whose modules that begin with `_` are siblings, too; each module gets its own copy of them.

    Raises:
        BaseException: Whatever the file raises, unchanged; then nothing of it is left in `sys.modules`.
    """
    with _installing:
        if _FINDER not in sys.meta_path:
            # First: the standard finder would follow the private package's `__path__` and load siblings as they are.
            sys.meta_path.insert(0, _FINDER)
    readable = re.sub(r"\W+", "_", name).strip("_")
    # Absolute: a sibling that is imported late must be found although the working directory has changed.
    file, folder, shared = file.absolute(), folder and folder.absolute(), shared and shared.absolute()
    package = _Package(f"{_PREFIX}{readable}_{next(_numbers)}", file, folder, shared)
    _FINDER.packages[package.name] = package
    try:
        module = importlib.import_module(f"{package.name}.{package.main}" if package.main else package.name)
    except BaseException:
        _forget(package.name)
        raise
    return IsolatedModule(module, package.name)


def is_private(package: str) -> bool:
    """Whether a name is one that `load_isolated` made up, and so nothing that could be installed."""
    return package.startswith(_PREFIX)


def public_names(text: str) -> str:
    """A text that names modules as their author does."""
    return re.sub(rf"\b{_PREFIX}\w+?_\d+\.", "", text)


def _forget(package: str) -> None:
    _FINDER.packages.pop(package, None)
    for name in _names(package):
        sys.modules.pop(name, None)


def _names(package: str) -> list[str]:
    # A copy, made in one step: other threads import while this one looks.
    return [name for name in list(sys.modules) if name == package or name.startswith(f"{package}.")]


def _spec(fullname: str, place: Path, package: _Package) -> ModuleSpec | None:
    file = place / "__init__.py" if place.is_dir() else place
    loader = _Loader(fullname, str(file), package)
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)


def _folder_spec(fullname: str, folder: Path, *, importable: bool = True) -> ModuleSpec:
    spec = ModuleSpec(fullname, _FolderLoader(folder), is_package=True)
    spec.submodule_search_locations = [str(folder)] if importable else []
    return spec
