"""Is an audit log whole? Finds what was edited, removed, added or moved, and tolerates a last line that was cut off.

It mends nothing.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

from gateway_plugins.security.audit.hash_chain import (
    DROPPED,
    GENESIS,
    LOST,
    RECOVERED,
    REMOVED,
    Head,
    Sealed,
    chain_files,
    head_of,
    take_apart,
)


@frozen
class Problem:
    """Something in a chain that the gateway did not do."""

    file: str
    line: int
    """From 1; 0 for the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


@frozen
class Report:
    """What a look at a chain found."""

    files: tuple[str, ...]
    records: int
    first: int
    """The number of the first record; 0 when there is none."""
    last: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What an operator should know, and is no sign of a change."""

    @property
    def ok(self) -> bool:
        """Whether nothing was changed or removed."""
        return not self.problems


def verify(path: Path) -> Report:
    """Whether a chain is whole: nothing edited, removed, added or moved. A last line that was cut off is tolerated.

    Args:
        path: Any file of the chain.

    Raises:
        OSError: A file cannot be read.
    """
    for _ in range(3):
        files = chain_files(path)
        report = _Verification(path).run(files)
        if report.ok or chain_files(path) == files:
            break  # else a file was begun meanwhile
    return report


def _missing(first: int, last: int, where: str = "") -> str:
    which = f"record {first} is missing" if first == last else f"records {first} to {last} are missing"
    return f"{which} {where}".rstrip()


def _lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


@define
class _Verification:
    path: Path
    previous: str | None = None
    seq: int = 0
    first: int = 0
    records: int = 0
    removed_to: int = 0
    odd: list[bytes] = field(factory=list)
    """The lines since the last record that are none."""
    odd_at: tuple[str, int] = ("", 0)
    problems: list[Problem] = field(factory=list)
    notes: list[str] = field(factory=list)

    def run(self, files: list[Path]) -> Report:
        # Read first: while the gateway writes, the files may only be ahead of it.
        head = Head.read(head_of(self.path))
        if head is None and not any(file.exists() for file in files):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        for file in filter(Path.exists, files):
            for number, line in enumerate(_lines_of(file), 1):
                self._line(file.name, number, line)
        self._odd_end(files[-1].name, head)
        self._beginning(files[0].name)
        self._end(files[-1].name, head)
        return Report(
            tuple(file.name for file in files),
            self.records,
            self.first,
            self.seq,
            tuple(self.problems),
            tuple(self.notes),
        )

    def _line(self, file: str, number: int, line: bytes) -> None:
        sealed = take_apart(line.removesuffix(b"\n"))
        if sealed is None:
            if not self.odd:
                self.odd_at = (file, number)
            self.odd.append(line)
            return
        self._what_is_odd(sealed)
        self._what_is_missing(file, number, sealed)
        self.records += 1
        self.first = self.first or sealed.seq
        self.previous, self.seq = sealed.seal, sealed.seq

    def _what_is_odd(self, sealed: Sealed) -> None:
        if not self.odd:
            return
        cut_off = sum(map(len, self.odd)) - 1  # the end of its line came with the next record
        if sealed.record.get("event") == RECOVERED and sealed.record.get("torn_bytes") == cut_off:
            self.notes.append(f"{self.odd_at[0]}:{self.odd_at[1]}: a record was cut off when it was written")
        else:
            self.problems.append(Problem(*self.odd_at, "is no record of this log, or was edited"))
            # What it was sealed with cannot be told: what follows is taken up anew.
            self.previous = None
            self.seq = sealed.seq - 1
        self.odd.clear()

    def _what_is_missing(self, file: str, number: int, sealed: Sealed) -> None:
        record, event = sealed.record, sealed.record.get("event")
        if event == REMOVED and isinstance(record.get("to"), int):
            self.removed_to = max(self.removed_to, record["to"])
        if event == DROPPED:
            self.notes.append(f"{file}:{number}: {record.get('records')} records could not be written")
        if event == LOST:
            self.problems.append(
                Problem(file, number, f"records {record.get('from')} to {record.get('to')} were gone at a start")
            )
        elif self.records and sealed.seq > self.seq + 1:
            self.problems.append(Problem(file, number, _missing(self.seq + 1, sealed.seq - 1)))
            return
        elif self.records and sealed.seq <= self.seq:
            self.problems.append(Problem(file, number, f"record {sealed.seq} is not in its place"))
            return
        if self.previous is None and not self.records:
            # The first there is: what it is sealed over stands in it, unless it is the very first.
            self.previous = GENESIS if sealed.seq == 1 or event == LOST else record.get("prev")
        if self.previous is None:
            return
        if not sealed.follows(self.previous):
            self.problems.append(Problem(file, number, f"record {sealed.seq} was edited, or what it follows was"))

    def _odd_end(self, file: str, head: Head | None) -> None:
        if not self.odd:
            return
        name, number = self.odd_at
        cut_off = len(self.odd) == 1 and not self.odd[0].endswith(b"\n")
        # Where no record is missing, one was cut off more than once on a full disk.
        if name == file and (cut_off or (head is not None and head.seq <= self.seq)):
            self.notes.append(f"{name}:{number}: the last record is cut off, as a killed process leaves it")
        else:
            self.problems.append(Problem(name, number, "is no record of this log, or was edited"))
            self.previous = None
            self.seq += 1

    def _beginning(self, file: str) -> None:
        if self.first > 1 and self.removed_to < self.first - 1 and not any(p.line == 1 for p in self.problems):
            self.problems.append(Problem(file, 0, _missing(1, self.first - 1)))
        elif self.first > 1 and self.removed_to:
            self.notes.append(f"records 1 to {self.first - 1} were removed by the gateway, as `keep` says")

    def _end(self, file: str, head: Head | None) -> None:
        if head is None:
            self.notes.append(f"there is no {head_of(self.path).name}: records cut off at the end would not show")
        elif head.seq > self.seq:
            self.problems.append(Problem(file, 0, _missing(self.seq + 1, head.seq, "at the end")))
        elif head.seq == self.seq and self.previous not in (None, head.seal):
            self.problems.append(Problem(file, 0, f"record {self.seq} is not the one that was written"))
