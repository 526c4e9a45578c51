"""Inline script metadata: what a Python file says that it needs, in a comment at its top (`# /// script`).

It reads the block and nothing else of the file, and it runs none of it.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gateway_plugins.requirements.declarations import Declared, NeededPython, Place, Refusal
from gateway_plugins.requirements.lines import parse_requirement

_BLOCK = re.compile(r"^# /// script[ \t]*\n((?:#(?:| [^\n]*)\n)*)# ///[ \t]*$", re.MULTILINE)
_MEND = "mend the block that begins with '# /// script'"


def parse_inline(text: str, file: Path) -> list[Declared | NeededPython | Refusal]:
    """What the block in a file's text declares; nothing when there is none.

    Args:
        text: The beginning of the file, with `\\n` between lines.
        file: Where it stands.
    """
    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        return []
    first = text.count("\n", 0, blocks[0].start()) + 1
    block = _Block(file, first, blocks[0][1].splitlines())
    if len(blocks) > 1:
        return [block.malformed("there are two '# /// script' blocks", "")]
    return block.items()


class _Block:
    def __init__(self, file: Path, line: int, comments: list[str]) -> None:
        self._file = file
        self._line = line
        self._lines = [comment[2:] for comment in comments]

    def items(self) -> list[Declared | NeededPython | Refusal]:
        try:
            table = tomllib.loads("\n".join(self._lines))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            return [self.malformed(f"the inline metadata is no valid TOML: {error}", "")]
        wanted = table.get("dependencies", [])
        if not isinstance(wanted, list) or not all(isinstance(item, str) for item in wanted):
            return [self.malformed("'dependencies' must be a list of texts", "dependencies")]
        found: list[Declared | NeededPython | Refusal] = [self._requirement(item) for item in wanted]
        if "requires-python" in table:
            found.append(self._python(table["requires-python"]))
        tool = table.get("tool")
        if isinstance(tool, dict) and "uv" in tool:
            # It may name other indexes: the same name would mean another package than the author meant.
            reason = "settings of an installer are not taken from an agent's file"
            found.append(Refusal(self._place("[tool.uv"), reason, "remove the table [tool.uv]"))
        return found

    def malformed(self, reason: str, near: str) -> Refusal:
        return Refusal(self._place(near), reason, _MEND, malformed=True)

    def _requirement(self, text: str) -> Declared | Refusal:
        place = self._place(text)
        if "--" in text:
            return Refusal(place, f"this is no requirement: {text!r}", _MEND, malformed=True)
        return parse_requirement(text, place)

    def _python(self, value: Any) -> NeededPython | Refusal:
        place = self._place("requires-python")
        try:
            return NeededPython(SpecifierSet(value), place)
        except (InvalidSpecifier, TypeError, AttributeError):
            return self.malformed(f"'requires-python' is no range of versions: {value!r}", "requires-python")

    def _place(self, near: str) -> Place:
        offset = next((i for i, line in enumerate(self._lines) if near and near in line), None)
        if offset is None:
            return Place(self._file, self._line, "# /// script")
        return Place(self._file, self._line + 1 + offset, f"# {self._lines[offset]}".strip())
