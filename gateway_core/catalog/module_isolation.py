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
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.resources.abc import TraversableResources
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from attrs import field, frozen

from gateway_core.catalog.import_scope import OUTER, ImportScope
from gateway_core.catalog.import_stop import script_failure
from gateway_core.catalog.safe_ast import compile_tree, parse

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


class _Finder(MetaPathFinder):
    """Finds the modules of private packages only."""

    def __init__(self) -> None:
        self.scopes: dict[str, ImportScope] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        first, *parts = fullname.split(".")
        scope = self.scopes.get(first)
        if scope is None:
            return None
        if scope.main and parts == [scope.main]:
            return _spec(fullname, scope.file, scope)
        place = scope.file.parent if not parts else scope.find(parts)
        if place is None:
            if scope.link_outside(parts):
                # Otherwise the standard finder would find it.
                raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
            return None
        if not parts and scope.main:
            return _root_spec(fullname, scope)
        if parts == [OUTER] or (place.is_dir() and not (place / "__init__.py").is_file()):
            return _folder_spec(fullname, _FolderLoader(place))
        return _spec(fullname, place, scope)


_FINDER = _Finder()


class _Loader(SourceFileLoader):
    """Compiles from source each time, and rewrites imports of siblings."""

    def __init__(self, fullname: str, path: str, scope: ImportScope) -> None:
        super().__init__(fullname, path)
        self._scope = scope
        self.interruption: BaseException | None = None

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except BaseException as error:
            scope = self._scope
            main = f"{scope.package}.{scope.main}" if scope.main else scope.package
            if module.__name__ != main or script_failure(error) is None:
                raise
            self.interruption = error

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]
        return compile_tree(_PrivateImports(self._scope, Path(path)).visit(parse(data, path)), path)


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


class _RootLoader(_FolderLoader):
    """Loads the folder of a file. Its `__init__.py` runs only if a module takes a name from it."""

    def __init__(self, scope: ImportScope) -> None:
        assert scope.folder is not None
        super().__init__(scope.folder)
        self._scope = scope

    def exec_module(self, module: ModuleType) -> None:
        source = self._folder / "__init__.py"
        if not source.is_file() or self._scope.leaves(source):
            return

        def getattr_(name: str) -> Any:
            if name.startswith("__") or self._scope.find([name]) is not None or vars(module).get("__file__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            module.__file__ = str(source)
            exec(_Loader(module.__name__, str(source), self._scope).get_code(module.__name__), vars(module))  # noqa: S102
            return getattr(module, name)

        vars(module)["__getattr__"] = getattr_


class _PrivateImports(ast.NodeTransformer):
    """Rewrites absolute imports of siblings to absolute imports from the private package. Keeps line numbers."""

    def __init__(self, scope: ImportScope, file: Path) -> None:
        self._scope = scope
        self._file = file

    def visit(self, node: ast.AST) -> Any:
        # Expressions contain no import statements, and a long one (a sum of 600 terms) exceeds the recursion limit.
        return node if isinstance(node, ast.expr) else super().visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level == 0 and node.module:
            wanted = [alias.name for alias in node.names]
            node.module = self._scope.private_name(node.module, wanted) or node.module
        elif node.level and (private := self._scope.relative_name(self._file, node.level, node.module)):
            node.module, node.level = private, 0
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        if not any(self._scope.private_name(alias.name) for alias in node.names):
            return node
        statements = [statement for alias in node.names for statement in self._import(alias)]
        return [ast.fix_missing_locations(ast.copy_location(statement, node)) for statement in statements]

    def _import(self, alias: ast.alias) -> list[ast.stmt]:
        private = self._scope.private_name(alias.name)
        if private is None:
            return [ast.Import([alias])]
        first = alias.name.partition(".")[0]
        if alias.asname or first == alias.name:
            return [ast.Import([ast.alias(private, alias.asname or first)])]
        # `import sub.deep` imports the whole path, but binds only its first part.
        whole = ast.Expr(ast.Call(ast.Name("__import__", ast.Load()), [ast.Constant(private)], []))
        return [whole, ast.Import([ast.alias(private.removesuffix(alias.name.removeprefix(first)), first)])]


def load_isolated(file: Path, *, folder: Path | None, name: str, shared: Path | None = None) -> IsolatedModule:
    """Import a file under a new private name. Blocking; runs the file's code.

    Args:
        file: The file to import; an `__init__.py` is imported as a package.
        folder: The folder whose files are siblings of the module; `None` for no siblings.
        name: Readable part of the private name, such as an agent's id.
        shared: The drop-in folder. Its modules with a leading `_`, and those of the folders above the module's own, can
            be imported, too; each loaded module gets its own copy.

    The import ends at a statement of the file that runs an agent; `interruption` returns the exception.

    Raises:
        BaseException: Any other exception of the file, unchanged; its modules are then removed from `sys.modules`.
    """
    with _installing:
        if _FINDER not in sys.meta_path:
            # At the front: the standard finder would use the private package's `__path__` and load siblings without
            # rewriting their imports.
            sys.meta_path.insert(0, _FINDER)
    readable = re.sub(r"\W+", "_", name).strip("_")
    # Absolute, so that lazy imports of siblings work after the working directory has changed.
    file, folder, shared = file.absolute(), folder and folder.absolute(), shared and shared.absolute()
    scope = ImportScope(f"{_PREFIX}{readable}_{next(_numbers)}", file, folder, shared)
    _FINDER.scopes[scope.package] = scope
    try:
        module = importlib.import_module(f"{scope.package}.{scope.main}" if scope.main else scope.package)
    except BaseException:
        _forget(scope.package)
        raise
    return IsolatedModule(module, scope.package)


def interruption(module: object) -> BaseException | None:
    """Return the exception that ended the import of a module early, at its script part (see `import_stop`)."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    return loader.interruption if isinstance(loader, _Loader) else None


def is_private(package: str) -> bool:
    """Whether a package name was generated by `load_isolated`, and so is not that of an installable package."""
    return package.startswith(_PREFIX)


def public_names(text: str) -> str:
    """Replace private module names in a text by the names that the author uses."""
    return re.sub(rf"\b{_PREFIX}\w+?_\d+\.(?:{OUTER}\.)?", "", text)


def _forget(package: str) -> None:
    _FINDER.scopes.pop(package, None)
    for name in _names(package):
        sys.modules.pop(name, None)


def _names(package: str) -> list[str]:
    # An atomic copy: other threads may import modules during the iteration.
    return [name for name in list(sys.modules) if name == package or name.startswith(f"{package}.")]


def _spec(fullname: str, place: Path, scope: ImportScope) -> ModuleSpec | None:
    file = place / "__init__.py" if place.is_dir() else place
    loader = _Loader(fullname, str(file), scope)
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)


def _root_spec(fullname: str, scope: ImportScope) -> ModuleSpec:
    if scope.folder is not None:
        return _folder_spec(fullname, _RootLoader(scope))
    spec = _folder_spec(fullname, _FolderLoader(scope.file.parent))
    spec.submodule_search_locations = []  # the other files of its folder are not its submodules
    return spec


def _folder_spec(fullname: str, loader: "_FolderLoader") -> ModuleSpec:
    spec = ModuleSpec(fullname, loader, is_package=True)
    spec.submodule_search_locations = [str(loader.files())]
    return spec
