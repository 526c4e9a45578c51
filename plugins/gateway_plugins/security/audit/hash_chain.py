"""Seals and parses audit log lines: each has a SHA-256 hash over the previous hash and its own record.

Files are written in `audit/file.py`. The chain makes edits detectable but does not authenticate the writer: a user who
can write the file can forge a whole chain. Ship the log to another system to protect against that.
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

GENESIS = "0" * 64
"""The previous hash of the first record."""

FILE_BEGAN = "agent.security.audit.file"
"""The first record of each file after the first; `prev` is the hash of the last record of the previous file."""
RECOVERED = "agent.security.audit.recovered"
"""The `torn_bytes` before this record are a partial record, written when the process died or the disk was full."""
LOST = "agent.security.audit.lost"
"""Records `from` to `to` had been written but were missing when the gateway started."""
HEAD_LOST = "agent.security.audit.head_lost"
"""The head file was missing when the gateway started, so records after `after` may have been removed."""
REMOVED = "agent.security.audit.removed"
"""The gateway removed the oldest file, whose last record was `to`, because of the setting `keep`."""
DROPPED = "agent.security.audit.dropped"
"""Number of `records` that could not be written and were dropped."""

_MAX_SEQ = 10**15
_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')
_ROTATED = re.compile(r"(.+)\.(\d{4,})\.jsonl")


def seal(record: bytes, seq: int, previous: str) -> tuple[bytes, str]:
    """Return the line to write for a record, and its hash.

    Args:
        record: A non-empty JSON object.
        seq: The sequence number of the record, from 1.
        previous: The hash of the previous record.
    """
    body = b'{"seq":%d,%b' % (seq, record[1:])
    digest = _digest(body, previous)
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), digest


def _digest(body: bytes, previous: str) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()


@frozen
class Sealed:
    """A parsed line."""

    body: bytes
    seal: str
    record: dict[str, Any]

    @property
    def seq(self) -> int:
        """The sequence number; 0 if the record has none."""
        seq = self.record.get("seq")
        return seq if isinstance(seq, int) else 0

    def follows(self, previous: str) -> bool:
        """Whether the hash is valid for the previous hash `previous`."""
        return _digest(self.body, previous) == self.seal


def parse_line(line: bytes) -> Sealed | None:
    """Parse a line without its newline; `None` if it is not a sealed record."""
    found = _SEAL.search(line)
    if found is None:
        return None
    body = line[: found.start()] + b"}"
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return Sealed(body, found[1].decode(), record) if isinstance(record, dict) else None


def audit_logs(folder: Path | None) -> list[Path]:
    """Return the active file of each audit log in a folder."""
    if folder is None:
        return []
    return sorted({head.with_suffix(".jsonl") for head in folder.glob("audit*.head")} | {*folder.glob("audit.jsonl")})


def chain_files(path: Path) -> list[Path]:
    """Return the existing files of the chain that `path` belongs to, oldest first; `[path]` if none exist."""
    files = [other for other in path.parent.glob("*.jsonl") if _stem(other) == _stem(path)]
    # The active file has no number and is the newest.
    return sorted(files, key=lambda file: rotation_number(file) or math.inf) or [path]


def rotation_number(path: Path) -> int:
    """Return the number of a rotated file; 0 for any other file."""
    rotated = _ROTATED.fullmatch(path.name)
    return int(rotated[2]) if rotated else 0


def head_path(path: Path) -> Path:
    """Return the path of the head file of a chain, which stores its last sequence number and hash."""
    return path.with_name(f"{_stem(path)}.head")


def _stem(path: Path) -> str:
    """Return the name that all files of a chain share, such as `audit-2`."""
    rotated = _ROTATED.fullmatch(path.name)
    return rotated[1] if rotated else path.name.removesuffix(".jsonl")


@frozen
class Head:
    """The last record of a chain, stored in a separate file so that truncation is detectable."""

    seq: int
    seal: str

    @classmethod
    def read(cls, path: Path) -> "Head | None":
        """Read a head file; `None` if it is missing or malformed."""
        try:
            value = orjson.loads(path.read_bytes())
            seq = value["seq"]
            return cls(seq, str(value["hash"])) if type(seq) is int and 0 <= seq <= _MAX_SEQ else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """Serialize to JSON of constant length, so that the file can be overwritten in place."""
        return b'{"seq":%16d,"hash":"%b"}\n' % (self.seq, self.seal.encode())
