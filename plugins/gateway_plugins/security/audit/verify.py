"""Verifies the integrity of an audit log: finds records that were edited, removed, added or moved.

A partial last line is tolerated. Nothing is repaired.
"""

import errno
import os
from pathlib import Path

from attrs import define, field, frozen

from gateway_plugins.security.audit.hash_chain import (
    DROPPED,
    GENESIS,
    HEAD_LOST,
    LOST,
    RECOVERED,
    REMOVED,
    Head,
    Sealed,
    chain_files,
    head_path,
    parse_line,
)


@frozen
class Problem:
    """A change to a chain that the gateway did not make."""

    file: str
    line: int
    """The line number, from 1; 0 for the whole file."""
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


@frozen
class Report:
    """The result of verifying a chain."""

    files: tuple[str, ...]
    records: int
    first: int
    """The sequence number of the first record; 0 without records."""
    last: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """Information for the operator that does not indicate a change."""

    @property
    def ok(self) -> bool:
        """Whether no change was found."""
        return not self.problems


def verify(path: Path) -> Report:
    """Verify a chain. A partial last line is tolerated.

    Args:
        path: Any file of the chain.

    Raises:
        OSError: A file cannot be read.
    """
    for _ in range(3):
        files = chain_files(path)
        report = _Verification(path).run(files)
        if report.ok or chain_files(path) == files:
            break  # otherwise the log was rotated during the verification
    return report


def _missing(first: int, last: int, where: str = "") -> str:
    which = f"record {first} is missing" if first == last else f"records {first} to {last} are missing"
    return f"{which} {where}".rstrip()


@define
class _Verification:
    path: Path
    previous: str | None = None
    seq: int = 0
    first: int = 0
    records: int = 0
    removed_to: int = 0
    unparsed: list[bytes] = field(factory=list)
    """The lines since the last record that are not records."""
    unparsed_at: tuple[str, int] = ("", 0)
    problems: list[Problem] = field(factory=list)
    notes: list[str] = field(factory=list)

    def run(self, files: list[Path]) -> Report:
        # Read before the files: while the gateway writes, the files can only be ahead of the head.
        head = Head.read(head_path(self.path))
        if head is None and not any(file.exists() for file in files):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        for file in filter(Path.exists, files):
            with file.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    self._line(file.name, number, line)
        self._check_unparsed_tail(files[-1].name, head)
        self._check_start(files[0].name)
        self._check_end(files[-1].name, head)
        return Report(
            tuple(file.name for file in files),
            self.records,
            self.first,
            self.seq,
            tuple(self.problems),
            tuple(self.notes),
        )

    def _line(self, file: str, number: int, line: bytes) -> None:
        sealed = parse_line(line.removesuffix(b"\n"))
        if sealed is None:
            if not self.unparsed:
                self.unparsed_at = (file, number)
            self.unparsed.append(line)
            return
        self._check_unparsed(sealed)
        self._check_sequence(file, number, sealed)
        self.records += 1
        self.first = self.first or sealed.seq
        self.previous, self.seq = sealed.seal, sealed.seq

    def _check_unparsed(self, sealed: Sealed) -> None:
        if not self.unparsed:
            return
        cut_off = sum(map(len, self.unparsed)) - 1  # the newline was written with the next record
        if sealed.record.get("event") == RECOVERED and sealed.record.get("torn_bytes") == cut_off:
            self.notes.append(f"{self.unparsed_at[0]}:{self.unparsed_at[1]}: partial record, from an interrupted write")
        else:
            self._problem(*self.unparsed_at, "not a record of this log, or edited")
            # Its hash is unknown, so the chain restarts at the next record.
            self.previous = None
            self.seq = sealed.seq - 1
        self.unparsed.clear()

    def _check_sequence(self, file: str, number: int, sealed: Sealed) -> None:
        record, event = sealed.record, sealed.record.get("event")
        if event == REMOVED and isinstance(record.get("to"), int):
            self.removed_to = max(self.removed_to, record["to"])
        if event == DROPPED:
            self.notes.append(f"{file}:{number}: {record.get('records')} records could not be written")
        if event == HEAD_LOST:
            after = f"records after {record.get('after')} may have been removed"
            self._problem(file, number, f"the head file was missing when the gateway started: {after}")
        if event == LOST:
            lost = f"records {record.get('from')} to {record.get('to')}"
            self._problem(file, number, f"{lost} were missing when the gateway started")
        elif self.records and sealed.seq > self.seq + 1:
            self._problem(file, number, _missing(self.seq + 1, sealed.seq - 1))
            return
        elif self.records and sealed.seq <= self.seq:
            self._problem(file, number, f"record {sealed.seq} is out of order")
            return
        if self.previous is None and not self.records:
            # The first remaining record contains its previous hash, unless it is the first of the chain.
            self.previous = GENESIS if sealed.seq == 1 or event == LOST else record.get("prev")
        if self.previous is None:
            return
        if not sealed.follows(self.previous):
            self._problem(file, number, f"record {sealed.seq} or the one before it was edited")

    def _problem(self, file: str, line: int, text: str) -> None:
        self.problems.append(Problem(file, line, text))

    def _check_unparsed_tail(self, file: str, head: Head | None) -> None:
        if not self.unparsed:
            return
        name, number = self.unparsed_at
        cut_off = len(self.unparsed) == 1 and not self.unparsed[0].endswith(b"\n")
        # If no record is missing, several writes of one record were interrupted on a full disk.
        if name == file and (cut_off or (head is not None and head.seq <= self.seq)):
            self.notes.append(f"{name}:{number}: partial last record, from an interrupted write")
        else:
            self._problem(name, number, "not a record of this log, or edited")
            self.previous = None
            self.seq += 1

    def _check_start(self, file: str) -> None:
        if self.first > 1 and self.removed_to < self.first - 1 and not any(p.line == 1 for p in self.problems):
            self._problem(file, 0, _missing(1, self.first - 1))
        elif self.first > 1 and self.removed_to:
            self.notes.append(
                f"records 1 to {self.first - 1} were removed by the gateway because of the setting `keep`"
            )

    def _check_end(self, file: str, head: Head | None) -> None:
        if head is None:
            self._problem(head_path(self.path).name, 0, f"missing: records after {self.seq} may have been removed")
        elif head.seq > self.seq:
            self._problem(file, 0, _missing(self.seq + 1, head.seq, "at the end"))
        elif head.seq == self.seq and self.previous not in (None, head.seal):
            self._problem(file, 0, f"record {self.seq} differs from the record that was written")
