"""Determines which files a module of a drop-in folder can import, and their names in its private package.

The search path of a module is: its own folder, the folders above it up to the drop-in folder, and `src` in each. In the
drop-in folder itself only modules with a leading `_`, and the folder that contains the module, can be imported. An
installed package takes precedence over the folders above.

Each file has one private name, by whichever way it is imported: `package.sub.module` in the module's own folder,
`package.__outer__.…` with the path in the drop-in folder for those above it. This module reads no file.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

# A sibling may shadow an installed package, as it does for a script, but never one of these: a folder of agents is
# often called `agents`, and `import agents` must still import the SDK.
NEVER_SIBLINGS = frozenset({"agents", "openai", "gateway_core", "__main__"}) | sys.stdlib_module_names

OUTER = "__outer__"
"""The private package of the folders above the module's own."""
_SOURCE_FOLDER = "src"


@frozen
class ImportScope:
    """The files that one isolated module can import.

    All paths are absolute.
    """

    package: str
    """The private package name."""
    file: Path
    """The file that is loaded."""
    folder: Path | None
    """The module's own folder; `None` for a single file."""
    root: Path | None
    """The drop-in folder, if there is one."""

    @property
    def main(self) -> str:
        """The file's module name within the package; empty if the file is the package itself."""
        return "" if self.file.name == "__init__.py" else self.file.stem.replace(".", "_")

    def private_name(self, name: str, wanted: Collection[str] = ()) -> str | None:
        """Return the private name for an absolute import; `None` if it does not name a file of this scope.

        Args:
            name: The name of the module.
            wanted: The names that a `from` import takes from it.
        """
        first, *rest = name.split(".")
        if first in NEVER_SIBLINGS:
            return None
        if self.find([first]) is not None:
            return self._named(first, *rest)
        if self._at(self.folder and self.folder / _SOURCE_FOLDER, [first]) is not None:
            return self._named(_SOURCE_FOLDER, first, *rest)
        above = list(self._above())
        if self.folder is None and above and self._at(above[0], [first]) is not None:
            return self._outer_name([*self._parts(above[0]), first, *rest])
        if is_installed(first):
            return None
        if self.folder is not None and first == self.folder.name:
            return self._named(*rest) if self._has(rest, wanted) else None
        for place in (base for folder in above for base in (folder, folder / _SOURCE_FOLDER)):
            if self._at(place, [first]) is not None:
                return self._outer_name([*self._parts(place), first, *rest])
        if above and above[-1].name == first:
            return self._outer_name([first, *rest])
        return None

    def relative_name(self, file: Path, level: int, name: str | None) -> str | None:
        """Return the private name for a relative import; `None` if Python resolves it within the module's own folder.

        Args:
            file: The file that contains the import.
            level: The number of leading dots.
            name: The name after the dots, if any.
        """
        target = file.parents[level - 1] if level <= len(file.parents) else None
        if self.root is None or target is None or not target.is_relative_to(self.root):
            return None
        if self.folder is not None and all(path.is_relative_to(self.folder) for path in (file, target)):
            return None
        parts = [*self._parts(target), *(name.split(".") if name else ())]
        return self._outer_name(parts)

    def find(self, parts: Sequence[str]) -> Path | None:
        """Return the file or folder of a private name's parts, which follow the package."""
        if not parts:
            return None
        if parts[0] == OUTER:
            return self._at(self.root, parts[1:]) if parts[1:] else self.root
        found = self._at(self.folder, parts)
        return self._at(self.root, parts) if found is None and parts[0].startswith("_") else found

    def link_outside(self, parts: Sequence[str]) -> Path | None:
        """Return the file or folder of a private name's parts if it leads out of the drop-in folder."""
        base = self.root if parts[0] == OUTER else self.folder
        if base is None:
            return None
        place = base.joinpath(*parts[parts[0] == OUTER :])
        sources = (place.with_name(f"{place.name}.py"), place)
        return next((path for path in sources if path.exists() and self.leaves(path)), None)

    def leaves(self, place: Path) -> bool:
        """Whether a path leads out of the drop-in folder through a symbolic link."""
        return self.root is not None and not place.resolve().is_relative_to(self.root.resolve())

    def _has(self, rest: Sequence[str], wanted: Collection[str]) -> bool:
        """Whether the own folder has a module, or as a package the names that an import takes from it."""
        if rest or self.folder is None:
            return self.find(rest) is not None
        return (self.folder / "__init__.py").is_file() or any(self.find([name]) is not None for name in wanted)

    def _at(self, base: Path | None, parts: Sequence[str]) -> Path | None:
        if base is None:
            return None
        place = base.joinpath(*parts)
        source = place.with_name(f"{place.name}.py")
        found = None
        if (place / "__init__.py").is_file():
            found = place
        elif source.is_file():
            found = source
        elif place.is_dir() and any(place.rglob("*.py")):
            found = place
        return None if found is None or self.leaves(found) else found

    def _above(self) -> Iterator[Path]:
        """The folders above the module's own, up to but without the drop-in folder; the nearest first."""
        own = self.folder or self.file
        if self.root is not None and own.is_relative_to(self.root):
            yield from (path for path in own.parents if path != self.root and path.is_relative_to(self.root))

    def _parts(self, path: Path) -> tuple[str, ...]:
        assert self.root is not None
        return path.relative_to(self.root).parts

    def _outer_name(self, parts: Sequence[str]) -> str | None:
        """Return the private name for a path in the drop-in folder, if this scope contains it."""
        own = self._parts(self.folder) if self.folder is not None and self.root is not None else ()
        if own and tuple(parts[: len(own)]) == own:
            return self._named(*parts[len(own) :])
        if not parts or parts[0].startswith("_"):
            return self._named(*parts)
        assert self.root is not None
        above = self._parts(self.folder or self.file)[:-1]
        return self._named(OUTER, *parts) if above and parts[0] == above[0] else None

    def _named(self, *parts: str) -> str:
        return ".".join([self.package, *parts])


def is_installed(name: str) -> bool:
    """Whether a package or module is installed. A namespace package does not count."""
    try:
        spec = find_spec(name)
    except ValueError:  # a module without a specification
        return True
    return spec is not None and spec.origin is not None
