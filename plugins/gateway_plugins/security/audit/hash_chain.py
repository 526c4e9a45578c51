"""The lines of the audit log: each is sealed with a SHA-256 over the seal before it, so that a change shows.

It writes nothing; `audit_file.py` does. It proves that a chain is whole, and not who wrote it: whoever may write the
file can write another one. Ship the log elsewhere to be safe from that.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen

GENESIS = "0" * 64
"""What the first record of a chain is sealed over."""

FILE_BEGAN = "agent.security.audit.file"
"""The first record of each file but the first: `prev` is the seal that it goes on from."""
RECOVERED = "agent.security.audit.recovered"
"""`torn_bytes` before it are a record that was cut off when the process died or the disk was full."""
LOST = "agent.security.audit.lost"
"""Records `from` to `to` had been written, and were gone when the gateway started."""
REMOVED = "agent.security.audit.removed"
"""The gateway removed its oldest file, whose last record was `to`, because it keeps only so many."""
DROPPED = "agent.security.audit.dropped"
"""So many `records` could not be written and were given up."""

_SEAL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')
_ROTATED = re.compile(r"(.+)\.(\d{4,})\.jsonl")


def seal(record: bytes, seq: int, previous: str) -> tuple[bytes, str]:
    """A record as the line that is written, and its seal.

    Args:
        record: What happened: a JSON object that is not empty.
        seq: The record's number in its chain, from 1.
        previous: The seal of the record before it.
    """
    body = b'{"seq":%d,%b' % (seq, record[1:])
    digest = _digest(body, previous)
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), digest


def _digest(body: bytes, previous: str) -> str:
    return hashlib.sha256(previous.encode() + body).hexdigest()


@frozen
class Sealed:
    """A line, taken apart."""

    body: bytes
    seal: str
    record: dict[str, Any]

    @property
    def seq(self) -> int:
        """The record's number."""
        seq = self.record.get("seq")
        return seq if isinstance(seq, int) else 0

    def follows(self, previous: str) -> bool:
        """Whether it is what was sealed over `previous`."""
        return _digest(self.body, previous) == self.seal


def take_apart(line: bytes) -> Sealed | None:
    """A line without its end; `None` when it is no record."""
    found = _SEAL.search(line)
    if found is None:
        return None
    body = line[: found.start()] + b"}"
    try:
        record = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return Sealed(body, found[1].decode(), record) if isinstance(record, dict) else None


def chain_files(path: Path) -> list[Path]:
    """The files of the chain that `path` belongs to, oldest first; `path` alone when its name tells of none."""
    rotated = _ROTATED.fullmatch(path.name)
    stem = rotated[1] if rotated else path.name.removesuffix(".jsonl")
    numbered = [
        (int(found[2]), other)
        for other in path.parent.glob("*.jsonl")
        if (found := _ROTATED.fullmatch(other.name)) and found[1] == stem
    ]
    active = path.with_name(f"{stem}.jsonl")
    return [*(other for _, other in sorted(numbered)), *([active] if active.exists() else [])] or [path]


def number_of(path: Path) -> int:
    """The number of a rotated file; 0 for any other."""
    rotated = _ROTATED.fullmatch(path.name)
    return int(rotated[2]) if rotated else 0


def head_of(path: Path) -> Path:
    """The file beside a chain that says how long it is."""
    rotated = _ROTATED.fullmatch(path.name)
    return path.with_name(f"{rotated[1] if rotated else path.name.removesuffix('.jsonl')}.head")


@frozen
class Head:
    """The last record of a chain, as it is noted apart: without it, records cut off at the end would not show."""

    seq: int
    seal: str

    @classmethod
    def read(cls, path: Path) -> "Head | None":
        """What is noted; `None` when there is nothing that can be read."""
        try:
            value = orjson.loads(path.read_bytes())
            return cls(int(value["seq"]), str(value["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def to_bytes(self) -> bytes:
        """JSON of one length whatever the number, so that it is overwritten in place."""
        return b'{"seq":%16d,"hash":"%b"}\n' % (self.seq, self.seal.encode())
