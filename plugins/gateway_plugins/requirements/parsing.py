"""Reads what an agent declares: `requirements.txt` in its folder, and the inline metadata of its file.

It raises nothing on account of what the files say: lines that cannot be taken are among the result.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from gateway_plugins.requirements.declarations import Declaration, Declared, NeededPython, Place, Refusal
from gateway_plugins.requirements.inline import parse_inline
from gateway_plugins.requirements.lines import parse_requirement

FILE_NAME = "requirements.txt"
MAX_BYTES = 1024 * 1024
INLINE_BYTES = 64 * 1024
"""How much of an agent's file is searched for inline metadata."""
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONSTRAINTS = re.compile(r"(?:-c\s+|--constraint(?:\s+|=))(\S+)")
_BREAKS = re.compile(r"\r\n|\r|\n")
# pip takes these for the end of a line, so what follows is no comment to it; no editor shows that.
_HIDDEN_BREAKS = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


class _UnreadableError(Exception):
    pass


def read_declaration(agent_id: str, file: Path, folder: Path | None) -> Declaration:
    """All that an agent declares.

    Args:
        agent_id: Its id.
        file: What is imported for it.
        folder: The folder that is its own, if it has one.
    """
    requirements: list[Declared] = []
    constraints: list[Declared] = []
    python: NeededPython | None = None
    refused: list[Refusal] = []
    found = _inline(file)
    if folder is not None:
        found += list(_requirements_file(folder, constraints))
    for item in found:
        if isinstance(item, Refusal):
            refused.append(item)
        elif isinstance(item, NeededPython):
            python = item
        else:
            requirements.append(item)
    refused += _half_hashed(requirements)
    return Declaration(agent_id, file, tuple(requirements), tuple(constraints), python, tuple(refused))


def _inline(file: Path) -> list[Declared | NeededPython | Refusal]:
    if file.suffix != ".py":
        return []
    try:
        with file.open("rb") as opened:
            start = opened.read(INLINE_BYTES)
    except OSError:
        return []  # whoever imports it tells what is wrong with it
    if b"# /// script" not in start:
        return []
    return parse_inline(_BREAKS.sub("\n", start.decode("utf-8-sig", "replace")), file)


def _requirements_file(folder: Path, constraints: list[Declared]) -> Iterator[Declared | Refusal]:
    file = folder / FILE_NAME
    try:
        text = _read(file, folder)
    except FileNotFoundError:
        return
    except _UnreadableError as error:
        yield Refusal(Place(file, 1, ""), f"the file {error}", "mend or remove it", malformed=True)
        return
    for line, place in _logical_lines(text, file):
        if isinstance(line, Refusal):
            yield line
        elif constraint := _CONSTRAINTS.fullmatch(line):
            yield from _constraints_file(constraint[1], folder, place, constraints)
        else:
            yield parse_requirement(line, place)


def _constraints_file(name: str, folder: Path, place: Place, into: list[Declared]) -> Iterator[Refusal]:
    file = folder / name
    try:
        text = _read(file, folder)
    except (FileNotFoundError, _UnreadableError) as error:
        problem = "is not there" if isinstance(error, FileNotFoundError) else str(error)
        yield Refusal(place, f"the file {name} {problem}", "put a plain file of constraints into the agent's folder")
        return
    for line, where in _logical_lines(text, file):
        item = line if isinstance(line, Refusal) else parse_requirement(line, where)
        if isinstance(item, Refusal):
            yield item
        elif item.hashes or item.requirement.extras:
            yield Refusal(where, "a constraint has neither hashes nor extras", f"write them into {FILE_NAME}")
        else:
            into.append(item)


def _read(file: Path, folder: Path) -> str:
    """A file's text.

    Raises:
        FileNotFoundError: There is none.
        _UnreadableError: It is not the agent's own, no regular file, too large or no text; it says which.
    """
    try:
        status = file.stat()
        if not file.resolve().is_relative_to(folder.resolve()):
            raise _UnreadableError("lies outside the agent's folder")
        if not stat.S_ISREG(status.st_mode):
            raise _UnreadableError("is no regular file")
        if status.st_size > MAX_BYTES:
            raise _UnreadableError(f"is larger than {MAX_BYTES} bytes")
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise _UnreadableError("is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise _UnreadableError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _logical_lines(text: str, file: Path) -> Iterator[tuple[str | Refusal, Place]]:
    """Lines without comments. Only hashes may stand on lines of their own: elsewhere `\\` hides what a line says."""
    lines = iter(enumerate(_BREAKS.split(text), start=1))
    for number, line in lines:
        place = Place(file, number, line.strip())
        if _HIDDEN_BREAKS.search(line):
            yield Refusal(place, "the line has a line break in it that does not show", "remove it"), place
            continue
        logical = _COMMENT.sub("", line).strip()
        while logical.endswith("\\"):
            number, line = next(lines, (0, ""))
            more = _COMMENT.sub("", line).strip()
            logical = f"{logical[:-1].rstrip()} {more}"
            if not more.startswith("--hash=") or _HIDDEN_BREAKS.search(line):
                yield (
                    Refusal(place, "a line is continued by something else than --hash=", "write it in one line"),
                    place,
                )
                logical = ""
        if logical:
            yield logical, place


def _half_hashed(requirements: Iterable[Declared]) -> Iterator[Refusal]:
    declared = list(requirements)
    if not any(one.hashes for one in declared):
        return
    for one in declared:
        pins = [s for s in one.requirement.specifier if s.operator == "==" and not s.version.endswith(".*")]
        if not one.hashes:
            yield Refusal(
                one.place, f"{one.requirement.name} has no hash, while others have", "add --hash=, or remove all"
            )
        elif not pins:
            yield Refusal(one.place, f"{one.requirement.name} has a hash and no exact version", "pin it with ==")
