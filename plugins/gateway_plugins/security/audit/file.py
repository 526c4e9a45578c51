"""The files of the audit log: only ever appended to, for the gateway's user alone, and begun anew when one is full.

It decides nothing about what to do when a disk is full; it raises, and goes on where it was when called again.
All of it blocks, and is for one thread.
"""

import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

from gateway_plugins.security.audit.hash_chain import (
    FILE_BEGAN,
    GENESIS,
    LOST,
    RECOVERED,
    REMOVED,
    Head,
    chain_files,
    head_of,
    number_of,
    seal,
    take_apart,
)

try:
    import fcntl
except ImportError:  # Windows: two gateways must not share a folder there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_AT_ONCE = 512
_MOST_WRITERS = 16
_BLOCK = 64 * 1024
# So far back a last record is looked for.
_FURTHEST = 1024 * 1024
# Not everywhere is there a call that leaves out the times of the file.
_sync = getattr(os, "fdatasync", os.fsync)


@frozen
class _Line:
    data: bytes
    seq: int
    seal: str
    source: deque[bytes] | None


class AuditFile:
    """One chain of records, in one file or several.

    Args:
        folder: Where the files are. While another process writes `audit.jsonl` there, `audit-2.jsonl` is taken.
        max_size: Bytes after which a new file is begun.
        keep: How many full files are kept; 0 keeps all.
        now: Tells the seconds since the epoch, for the records that this class writes itself.
    """

    def __init__(self, folder: Path, *, max_size: int, keep: int, now: Callable[[], float]) -> None:
        self._folder = folder
        self._max_size = max_size
        self._limit = max_size
        self._keep = keep
        self._now = now
        self._own: deque[bytes] = deque()
        self._fd = self._head_fd = -1
        self._seq, self._seal, self._size = 0, GENESIS, 0
        # Bytes at the end that are no whole record; and whether one is whole but for the end of its line.
        self._torn, self._unended = 0, False
        self.path = folder / "audit.jsonl"

    def open(self) -> None:
        """Take up the chain where it ends.

        Raises:
            OSError: The files cannot be made or read.
        """
        self.path, self._head_fd = self._free_path()
        try:
            self._take_up(Head.read(head_of(self.path)))
        except BaseException:
            self.close()
            raise
        self._note()
        _sync_folder(self._folder)

    def append(self, pending: deque[bytes]) -> None:
        """Write records, and take each out of `pending` that is in the file.

        Args:
            pending: JSON objects, none of them empty. Another thread may add to its right end meanwhile.

        Raises:
            OSError: Not all could be written; those that are still in `pending` are not in the file.
        """
        while pending or self._own:
            lines = self._next(pending)
            if lines:
                self._write(lines)
            else:
                self._begin_file()

    def sync(self) -> None:
        """Return when what was written is on the disk.

        Raises:
            OSError: The disk does not take it.
        """
        _sync(self._fd)

    def close(self) -> None:
        """Let go of the files."""
        for fd in (self._fd, self._head_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head_fd = -1

    def _take_up(self, noted: Head | None) -> None:
        files = [file for file in chain_files(self.path) if file.exists() and file.stat().st_size]
        tail = _tail(files[-1]) if files else _Tail()
        self._torn, self._unended = tail.torn, tail.unended
        if tail.last is not None:
            self._seq, self._seal = tail.last.seq, tail.last.seal
        self._fd = _open(self.path)
        self._size = os.fstat(self._fd).st_size
        if files and files[-1] != self.path:
            self._torn, self._unended = 0, False
            self._record(FILE_BEGAN, prev=self._seal, continues=files[-1].name)
        if noted is not None and noted.seq > self._seq:
            self._record(LOST, **{"from": self._seq + 1, "to": noted.seq})
            self._seq = noted.seq

    def _record(self, event: str, **fields: Any) -> None:
        self._own.append(self._as_json(event, **fields))

    def _as_json(self, event: str, **fields: Any) -> bytes:
        return orjson.dumps({"ts": round(self._now(), 6), "event": event, **fields})

    def _free_path(self) -> tuple[Path, int]:
        for number in range(1, _MOST_WRITERS + 1):
            path = self._folder / ("audit.jsonl" if number == 1 else f"audit-{number}.jsonl")
            fd = os.open(head_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if fcntl is not None:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
            else:
                return path, fd
        raise BlockingIOError(f"{_MOST_WRITERS} other processes write there")

    def _next(self, pending: deque[bytes]) -> list[_Line]:
        """The next lines that go into this file; none when it is full."""
        lines: list[_Line] = []
        seq, digest, size = self._seq, self._seal, self._size
        sources: list[tuple[bytes, deque[bytes] | None]] = []
        if self._torn:
            sources.append((self._as_json(RECOVERED, torn_bytes=self._torn), None))
        sources += [(record, self._own) for record in self._own]
        sources += [(record, pending) for record in islice(pending, _AT_ONCE)]
        for record, source in sources:
            seq += 1
            data, digest = seal(record, seq, digest)
            if (self._torn or self._unended) and not lines:
                data = b"\n" + data
            size += len(data)
            # What is the file's own is written wherever it is: a file begins with it.
            if size > self._limit and (self._size or lines) and source is pending:
                break
            lines.append(_Line(data, seq, digest, source))
        return lines

    def _write(self, lines: list[_Line]) -> None:
        data = memoryview(b"".join(line.data for line in lines))
        written, problem = 0, None
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            problem = error
        end = 0
        for line in lines:
            # Without the end of its line it is whole all the same, and must not be written a second time.
            size = min(len(line.data), written - end)
            if size < len(line.data) - 1:
                break
            end += size
            self._seq, self._seal = line.seq, line.seal
            self._size += size
            self._unended = size < len(line.data)
            if line.source is None:
                self._torn = 0
            else:
                line.source.popleft()
        if end < written:
            self._cut_off(written - end)
        self._note()
        if problem is not None:
            raise problem

    def _cut_off(self, left_over: int) -> None:
        """Part of a record is in the file: take it out, or else say so when the next one is written."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._size += left_over
            # The first byte of it may be the end of the line before.
            self._torn += left_over - self._unended
            self._unended = False

    def _note(self) -> None:
        # Not forced to the disk: it is never ahead of the records but after a power cut, and then they are missing.
        with suppress(OSError):
            os.pwrite(self._head_fd, Head(self._seq, self._seal).to_bytes(), 0)

    def _begin_file(self) -> None:
        try:
            self.sync()
            full = [file for file in chain_files(self.path) if number_of(file)]
            name = f"{self.path.stem}.{number_of(full[-1]) + 1 if full else 1:04d}.jsonl"
            self.path.rename(self.path.with_name(name))
            fd = _open(self.path)
        except OSError as error:
            logger.warning("no new audit file can be begun, so the old one grows: %s", error)
            self._limit += self._max_size
            return
        os.close(self._fd)
        self._fd, self._size, self._limit = fd, 0, self._max_size
        _sync_folder(self._folder)
        self._record(FILE_BEGAN, prev=self._seal, continues=name)
        self._remove([*full, self.path.with_name(name)])

    def _remove(self, full: list[Path]) -> None:
        for file in full[: -self._keep] if self._keep else []:
            with suppress(OSError):
                last = _tail(file).last
                file.unlink()
                self._record(REMOVED, file=file.name, to=last.seq if last else 0)


def _open(path: Path) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) and mode & 0o077:
        os.fchmod(fd, 0o600)
    return fd


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@frozen
class _Tail:
    """How a file ends."""

    last: Head | None = None
    """Its last record."""
    torn: int = 0
    """The bytes after that, which are none."""
    unended: bool = False
    """Whether that lacks the end of its line."""


def _tail(path: Path) -> _Tail:
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        tail = b""
        while start > 0 and len(tail) < _FURTHEST:
            block = min(_BLOCK, start)
            start = file.seek(start - block)
            tail = file.read(block) + tail
            lines = tail.split(b"\n")
            after = -1
            # The first of them may be a piece of one.
            for index in range(len(lines) - 1, 0 if start else -1, -1):
                sealed = take_apart(lines[index])
                if sealed is not None:
                    return _Tail(Head(sealed.seq, sealed.seal), max(after, 0), index == len(lines) - 1)
                after += len(lines[index]) + 1
    return _Tail(torn=len(tail))
