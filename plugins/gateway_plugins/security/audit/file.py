"""Appends records to the audit log files, which only the gateway's user can read, and rotates them by size.

It does not handle a full disk: `append` raises, and continues where it stopped when it is called again. All methods
block and must be called from one thread.
"""

import errno
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
    HEAD_LOST,
    LOST,
    RECOVERED,
    REMOVED,
    Head,
    chain_files,
    head_path,
    parse_line,
    rotation_number,
    seal,
)

try:
    import fcntl
except ImportError:  # Windows: two gateways must not share a folder
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_MAX_BATCH = 512
_MAX_WRITERS = 16
# Number of bytes at the end of a file that are searched for the last record.
_MAX_TAIL = 1024 * 1024
# fdatasync, which skips the timestamps, is not available on every platform.
_sync = getattr(os, "fdatasync", os.fsync)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


@frozen
class _Line:
    data: bytes
    seq: int
    seal: str
    source: deque[bytes] | None


class AuditFile:
    """One chain of records, in one or more files.

    Args:
        folder: The folder of the files. While another process writes `audit.jsonl` there, `audit-2.jsonl` is used.
        max_size: Maximum size of a file in bytes.
        keep: Number of rotated files to keep; 0 keeps all.
        now: Returns the seconds since the epoch, for the records that this class itself writes.
    """

    def __init__(self, folder: Path, *, max_size: int, keep: int, now: Callable[[], float]) -> None:
        self._folder = folder
        self._max_size = max_size
        self._limit = max_size
        self._keep = keep
        self._now = now
        self._internal: deque[bytes] = deque()
        self._fd = self._head_fd = -1
        self._seq, self._seal, self._size = 0, GENESIS, 0
        # Bytes of a partial record at the end; and whether the last record is complete but lacks its newline.
        self._torn, self._unterminated = 0, False
        self.path = folder / "audit.jsonl"

    def open(self) -> None:
        """Open or create the files and continue the chain.

        Raises:
            OSError: The files cannot be created or read.
        """
        self.path, self._head_fd = self._free_path()
        try:
            self._resume(Head.read(head_path(self.path)))
        except BaseException:
            self.close()
            raise
        self._write_head()
        _sync_folder(self._folder)

    def append(self, pending: deque[bytes]) -> None:
        """Write records, and remove each from `pending` once it is in the file.

        Args:
            pending: Non-empty JSON objects. Another thread may append to the deque during the call.

        Raises:
            OSError: Some records could not be written; they are still in `pending`.
        """
        while pending or self._internal:
            lines = self._next(pending)
            if lines:
                self._write(lines)
            else:
                self._begin_file()

    def sync(self) -> None:
        """Flush written records to the disk.

        Raises:
            OSError: The flush failed.
        """
        _sync(self._fd)

    def close(self) -> None:
        """Close the files, and delete them if they contain no record."""
        if self._fd >= 0 and self._seq == 0 and os.fstat(self._fd).st_size == 0:
            for path in (self.path, head_path(self.path)):
                path.unlink(missing_ok=True)
        for fd in (self._fd, self._head_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head_fd = -1

    def _resume(self, head: Head | None) -> None:
        files = [file for file in chain_files(self.path) if file.exists() and file.stat().st_size]
        tail = _tail(files[-1]) if files else _Tail()
        self._torn, self._unterminated = tail.torn, tail.unterminated
        if tail.last is not None:
            self._seq, self._seal = tail.last.seq, tail.last.seal
        self._fd = _open(self.path)
        self._size = os.fstat(self._fd).st_size
        if files and files[-1] != self.path:
            self._torn, self._unterminated = 0, False
            self._record(FILE_BEGAN, prev=self._seal, continues=files[-1].name)
        if head is None and tail.last is not None:
            self._record(HEAD_LOST, after=self._seq)
        if head is not None and head.seq > self._seq:
            self._record(LOST, **{"from": self._seq + 1, "to": head.seq})
            self._seq = head.seq

    def _record(self, event: str, **fields: Any) -> None:
        self._internal.append(self._as_json(event, **fields))

    def _as_json(self, event: str, **fields: Any) -> bytes:
        return orjson.dumps({"ts": round(self._now(), 6), "event": event, **fields})

    def _free_path(self) -> tuple[Path, int]:
        for number in range(1, _MAX_WRITERS + 1):
            path = self._folder / ("audit.jsonl" if number == 1 else f"audit-{number}.jsonl")
            fd = os.open(head_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, f"{head_path(path).name} is not a regular file")
            try:
                if fcntl is not None:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The process that has just released the lock may have deleted the file.
                kept = head_path(path).exists() and os.path.samestat(os.fstat(fd), head_path(path).stat())
            except (BlockingIOError, FileNotFoundError):
                kept = False
            if kept:
                return path, fd
            os.close(fd)
        raise BlockingIOError(f"{_MAX_WRITERS} other processes write audit logs there")

    def _next(self, pending: deque[bytes]) -> list[_Line]:
        """The next lines that fit into the current file; empty when it is full."""
        lines: list[_Line] = []
        seq, digest, size = self._seq, self._seal, self._size
        sources: list[tuple[bytes, deque[bytes] | None]] = []
        if self._torn:
            sources.append((self._as_json(RECOVERED, torn_bytes=self._torn), None))
        sources += [(record, self._internal) for record in self._internal]
        sources += [(record, pending) for record in islice(pending, _MAX_BATCH)]
        for record, source in sources:
            seq += 1
            data, digest = seal(record, seq, digest)
            if (self._torn or self._unterminated) and not lines:
                data = b"\n" + data
            size += len(data)
            # Internal records ignore the limit: every rotated file starts with one.
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
            # A record that lacks only its newline is complete and must not be written twice.
            size = min(len(line.data), written - end)
            if size < len(line.data) - 1:
                break
            end += size
            self._seq, self._seal = line.seq, line.seal
            self._size += size
            self._unterminated = size < len(line.data)
            if line.source is None:
                self._torn = 0
            else:
                line.source.popleft()
        if end < written:
            self._discard_partial(written - end)
        self._write_head()
        if problem is not None:
            raise problem

    def _discard_partial(self, partial: int) -> None:
        """Truncate a partial record; if that fails, the next write records it as torn."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._size += partial
            # Its first byte may be the newline of the previous record.
            self._torn += partial - self._unterminated
            self._unterminated = False

    def _write_head(self) -> None:
        # Not flushed: only a power failure can leave it ahead of the records, and then records are indeed missing.
        with suppress(OSError):
            os.pwrite(self._head_fd, Head(self._seq, self._seal).to_bytes(), 0)

    def _begin_file(self) -> None:
        try:
            self.sync()
            full = [file for file in chain_files(self.path) if rotation_number(file)]
            name = f"{self.path.stem}.{rotation_number(full[-1]) + 1 if full else 1:04d}.jsonl"
            self.path.rename(self.path.with_name(name))
            fd = _open(self.path)
        except OSError as error:
            logger.warning("could not rotate the audit log; the current file keeps growing: %s", error)
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
    # Without O_NONBLOCK, opening a FIFO would wait for a reader.
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | _NONBLOCK, 0o600)
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
    """The end of a file."""

    last: Head | None = None
    """The last complete record."""
    torn: int = 0
    """Number of bytes after it that are not a record."""
    unterminated: bool = False
    """Whether the last record lacks its newline."""


def _tail(path: Path) -> _Tail:
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _MAX_TAIL)
        file.seek(start)
        lines = file.read().split(b"\n")
    after = -1
    # Unless the tail starts at the beginning of the file, the first line may be partial.
    for index in range(len(lines) - 1, 0 if start else -1, -1):
        if (sealed := parse_line(lines[index])) is not None:
            return _Tail(Head(sealed.seq, sealed.seal), max(after, 0), index == len(lines) - 1)
        after += len(lines[index]) + 1
    return _Tail(torn=sum(map(len, lines)) + len(lines) - 1)
