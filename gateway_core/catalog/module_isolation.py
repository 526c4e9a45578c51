"""Loads a user's module by path under a private package name, so that modules do not share their helper modules.

`sys.path` is not modified. The module can import helpers from its own folder in every form: `from .tools import x`,
`from tools import x`, `import helpers`, including lazy imports long after the load. Two modules may each have a
`tools.py`. This module does not depend on agents, and does not inspect what a module exports.

Implementation: a finder on `sys.meta_path` handles only the private packages, and the loader rewrites absolute imports
of siblings to imports from the private package when it compiles. Bytecode is neither read nor written.
`importlib.import_module` with a sibling's bare name is not rewritten, and fails as in any package.
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

# A sibling may shadow an installed package, as it does for a script, but never one of these: a folder of agents is
# often called `agents`, and `import agents` must still import the SDK.
NEVER_SIBLINGS = frozenset({"agents", "openai", "gateway_core", "__main__"}) | sys.stdlib_module_names

_PREFIX = "gateway_agent_"
_numbers = itertools.count(1)
_installing = threading.Lock()


@frozen
class IsolatedModule:
    """A loaded module and the modules that it imported from its own folder."""

    module: ModuleType = field(repr=False)
    package: str
    """The private package name; in `sys.modules`, the names of its modules start with `package.`."""

    @property
    def files(self) -> frozenset[Path]:
        """The source files imported so far, including lazily imported and shared ones; empty after `unload`."""
        found = (getattr(sys.modules.get(name), "__file__", None) for name in _names(self.package))
        return frozenset(Path(file) for file in found if file)

    def unload(self) -> None:
        """Remove its modules from `sys.modules`.

        Code that still runs continues, but can no longer import siblings. Call this when none of its code runs.
        """
        _forget(self.package)


@frozen
class _Package:
    name: str
    file: Path
    folder: Path | None
    shared: Path | None

    @property
    def main(self) -> str:
        """The file's module name within the package; empty if the file is the package itself."""
        return "" if self.file.name == "__init__.py" else self.file.stem.replace(".", "_")

    def find(self, parts: Sequence[str]) -> Path | None:
        """Return the file or folder of a sibling; the module's own folder takes precedence over the shared one."""
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
    """Finds the modules of private packages only."""

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
    """Compiles from source each time, and rewrites imports of siblings."""

    def __init__(self, fullname: str, path: str, package: _Package) -> None:
        super().__init__(fullname, path)
        self._package = package

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        return compile_tree(_PrivateImports(self._package).visit(parse(data, path)), path)


class _FolderLoader(Loader, TraversableResources):
    """Loads a folder without an `__init__.py`: runs no code, and provides its data files to `importlib.resources`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        pass

    def get_resource_reader(self, fullname: str) -> TraversableResources:
        return self

    def files(self) -> Path:
        return self._folder


class _PrivateImports(ast.NodeTransformer):
    """Rewrites absolute imports of siblings to absolute imports from the private package. Keeps line numbers."""

    def __init__(self, package: _Package) -> None:
        self._package = package

    def visit(self, node: ast.AST) -> Any:
        # Expressions contain no import statements, and a long one (a sum of 600 terms) exceeds the recursion limit.
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
        # `import sub.deep` imports the whole path, but binds only its first part.
        whole = ast.Expr(ast.Call(ast.Name("__import__", ast.Load()), [ast.Constant(private)], []))
        return [whole, ast.Import([ast.alias(f"{self._package.name}.{first}", first)])]

    def _is_sibling(self, name: str) -> bool:
        first = name.partition(".")[0]
        return first not in NEVER_SIBLINGS and self._package.find([first]) is not None


def load_isolated(file: Path, *, folder: Path | None, name: str, shared: Path | None = None) -> IsolatedModule:
    """Import a file under a new private name. Blocking; runs the file's code.

    Args:
        file: The file to import; an `__init__.py` is imported as a package.
        folder: The folder whose files are siblings of the module; `None` for no siblings.
        name: Readable part of the private name, such as an agent's id.
        shared: A folder whose modules with a leading `_` are siblings, too; each loaded module gets its own copy.

    Raises:
        BaseException: Any exception that the file raises, unchanged; its modules are then removed from `sys.modules`.
    """
    with _installing:
        if _FINDER not in sys.meta_path:
            # At the front: the standard finder would use the private package's `__path__` and load siblings without
            # rewriting their imports.
            sys.meta_path.insert(0, _FINDER)
    readable = re.sub(r"\W+", "_", name).strip("_")
    # Absolute, so that lazy imports of siblings work after the working directory has changed.
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
    """Whether a package name was generated by `load_isolated`, and so is not that of an installable package."""
    return package.startswith(_PREFIX)


def public_names(text: str) -> str:
    """Replace private module names in a text by the names that the author uses."""
    return re.sub(rf"\b{_PREFIX}\w+?_\d+\.", "", text)


def _forget(package: str) -> None:
    _FINDER.packages.pop(package, None)
    for name in _names(package):
        sys.modules.pop(name, None)


def _names(package: str) -> list[str]:
    # An atomic copy: other threads may import modules during the iteration.
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
