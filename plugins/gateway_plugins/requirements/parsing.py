"""Reads what an agent declares: `requirements.txt` in its folder, and the inline metadata (PEP 723) of its file.

Nothing is raised because of a file's content: the result includes the lines that are rejected. The accepted format is
stricter than pip's and uv's, which follow options in a file, expand environment variables and install from any URL or
folder that a line names.
"""

import codecs
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from gateway_plugins.requirements.declarations import Declaration, Declared, Location, PythonRequirement, Rejected

FILE_NAME = "requirements.txt"
MAX_BYTES = 1024 * 1024
INLINE_BYTES = 64 * 1024
"""The part of an agent's file that is searched for inline metadata."""
# Far above any real line, and below the length at which parsers exhaust the stack or reject a number.
_MAX_CHARACTERS = 2000
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONSTRAINTS = re.compile(r"(?:-c\s*|--constraint(?:\s+|=))(\S+)")
_INCLUDED = re.compile(r"(?:-r\s*|--requirement(?:\s+|=))(\S+)")
_MAX_INCLUDED = 20
_HASH = re.compile(r"--hash=(sha256:[0-9a-fA-F]{64}|sha384:[0-9a-fA-F]{96}|sha512:[0-9a-fA-F]{128})")
# A URL, a path, or a name that installers take for a file in the working directory.
_PLACE = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:|[.~/\\]|[^;\[<>=!]*[/\\]|[\w.-]+\.(whl|zip|tar|tgz|tbz|txz|tlz|egg|tar\.[a-z0-9]+)(?![\w.-])",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"^# /// script[ \t]*\n((?:#(?:| [^\n]*)\n)*)# ///[ \t]*$", re.MULTILINE)
_BY_NAME = "name a project and its versions, such as requests>=2; the operator configures the package index"
_PEP_508 = "write a project and its versions, such as requests>=2,<3"
_PEP_723 = "fix the block that begins with '# /// script'"

_NOT_NEEDED = {
    "agents": ("the project 'agents' is not the SDK; openai-agents is installed", "write openai-agents"),
}

Item = Declared | PythonRequirement | Rejected


def read_declaration(agent_id: str, file: Path, folder: Path | None) -> Declaration:
    """Reads everything that an agent declares.

    Args:
        agent_id: Its id.
        file: The file that is imported for it.
        folder: The agent's own folder, if it has one.
    """
    items = list(_inline(file))
    if folder is not None and os.path.lexists(folder / FILE_NAME):
        items += _requirements(folder / FILE_NAME, folder)
    declared = [item for item in items if isinstance(item, Declared)]
    return Declaration(
        agent_id,
        file,
        folder,
        tuple(item for item in declared if not item.constraint),
        tuple(item for item in declared if item.constraint),
        next((item for item in items if isinstance(item, PythonRequirement)), None),
        tuple(item for item in items if isinstance(item, Rejected)),
    )


def _requirements(
    file: Path,
    folder: Path,
    named_at: Location | None = None,
    *,
    constraints: bool = False,
    seen: frozenset[Path] = frozenset(),
) -> Iterator[Item]:
    """The lines of a requirements file, or of the file that a line of it names."""
    try:
        text = _read(file, folder)
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        location, hint = named_at or Location(file, 1, ""), "replace it by a text file in the agent's folder"
        yield Rejected(location.error(f"the file {file.name} {problem}", hint), malformed=named_at is None)
        return
    for line, location in _logical_lines(text, file):
        limits = None if constraints else _CONSTRAINTS.fullmatch(line)
        if limits:
            yield from _requirements(file.parent / limits[1], folder, location, constraints=True)
            continue
        included = None if constraints else _INCLUDED.fullmatch(line)
        if included:
            inner = (file.parent / included[1]).resolve()
            if inner not in seen and len(seen) < _MAX_INCLUDED:
                yield from _requirements(inner, folder, location, seen=seen | {file.resolve(), inner})
            continue
        item = _parse_line(line, location)
        if constraints and isinstance(item, Declared):
            item = evolve(item, constraint=True)
            if item.hashes or item.requirement.extras:
                reason = "a constraint cannot have hashes or extras"
                item = Rejected(location.error(reason, f"write them into {FILE_NAME}"))
        yield item


def _read(file: Path, folder: Path) -> str:
    file.stat()  # raises OSError also for a loop of links, which `resolve` does not
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ValueError("is outside the agent's folder")
    if not file.is_file():
        raise ValueError("is not a regular file")
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        # PowerShell writes UTF-16 with `pip freeze > requirements.txt`.
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def _logical_lines(text: str, file: Path) -> Iterator[tuple[str, Location]]:
    r"""Lines without comments; a line that ends in `\` includes the next one."""
    parts: list[str] = []
    first = Location(file, 1, "")
    for number, line in enumerate([*_LINE_BREAK.split(text), ""], start=1):
        if not parts:
            first = Location(file, number, line.strip())
        part = _COMMENT.sub("", line).rstrip()
        parts.append(part.removesuffix("\\"))
        if not part.endswith("\\"):
            if logical := "".join(parts).strip():
                yield logical, first
            parts.clear()


def _parse_line(text: str, location: Location) -> Declared | Rejected:
    """Parses a requirement that may have `--hash=` options."""
    words = text.split()
    first = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    for option in words[first:]:
        name = option.partition("=")[0]
        if first == 0 or name != "--hash":
            return Rejected(location.error(f"the option {name} is not accepted in a requirements file", _BY_NAME))
        if not _HASH.fullmatch(option):
            hint = "write --hash=sha256: and 64 hexadecimal digits"
            return Rejected(location.error("not a sha256, sha384 or sha512 hash", hint), malformed=True)
    item = _parse_requirement(" ".join(words[:first]), location)
    hashes = tuple(option.removeprefix("--hash=") for option in words[first:])
    return evolve(item, hashes=hashes) if isinstance(item, Declared) else item


def _parse_requirement(text: str, location: Location) -> Declared | Rejected:
    if "${" in text:
        return Rejected(location.error("environment variables are not expanded", "write the value itself"))
    problem = "too long, or not printable"
    if len(text) <= _MAX_CHARACTERS and text.isprintable():
        if _PLACE.match(text):
            return Rejected(location.error("installing from a URL, a file or a folder is not accepted", _BY_NAME))
        try:
            declared = Declared(Requirement(text), location)
            declared.applies  # noqa: B018 - some invalid markers are only found by evaluating them
            if (note := _NOT_NEEDED.get(declared.project)) or declared.requirement.name in sys.stdlib_module_names:
                reason, hint = note or (f"{declared.requirement.name} is a part of Python", "remove the line")
                return Rejected(location.error(reason, hint), ignored=True)
            if declared.requirement.url is None:
                return declared
            return Rejected(location.error(f"installing {declared.project} from a URL is not accepted", _BY_NAME))
        except (InvalidRequirement, ValueError, RecursionError) as error:
            problem = str(error).partition("\n")[0]
    return Rejected(location.error(f"invalid requirement: {problem}", _PEP_508), malformed=True)


def _inline(file: Path) -> Iterator[Item]:
    try:
        with file.open("rb") as opened:
            start = opened.read(INLINE_BYTES if file.suffix == ".py" else 0)
    except OSError:
        return  # the import reports it
    text = _LINE_BREAK.sub("\n", start.decode("utf-8-sig", "replace"))
    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        return
    lines = ["# /// script", *blocks[0][1].splitlines()]
    begin = text.count("\n", 0, blocks[0].start()) + 1

    def locate(part: str) -> Location:
        offset = next((index for index, line in enumerate(lines) if part in line), 0)
        return Location(file, begin + offset, lines[offset])

    def malformed(reason: str, part: str = "") -> Rejected:
        return Rejected(locate(part).error(reason, _PEP_723), malformed=True)

    if len(blocks) > 1:
        yield malformed("the file has more than one '# /// script' block")
        return
    try:
        table = tomllib.loads("\n".join(line[2:] for line in lines[1:]))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        yield malformed(f"the inline metadata is not valid TOML: {error}")
        return
    dependencies = table.get("dependencies", [])
    if isinstance(dependencies, list) and all(isinstance(item, str) for item in dependencies):
        yield from (_parse_requirement(item, locate(item)) for item in dependencies)
    else:
        yield malformed("'dependencies' must be a list of strings", "dependencies")
    if "requires-python" in table:
        try:
            yield PythonRequirement(SpecifierSet(table["requires-python"]), locate("requires-python"))
        except (InvalidSpecifier, TypeError, AttributeError):
            yield malformed("'requires-python' must be a version specifier, such as '>=3.11'", "requires-python")
    if isinstance(tool := table.get("tool"), dict) and "uv" in tool:
        # It can name other package indexes, where a name may belong to a different package.
        reason = "settings of the installer are not accepted in an agent's file"
        yield Rejected(locate("[tool.uv").error(reason, "remove the table [tool.uv]"))
