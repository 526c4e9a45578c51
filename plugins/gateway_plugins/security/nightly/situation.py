"""What the nightly audit looks at: the settings as written, where things are, and what the audit log remembers.

It judges nothing.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from attrs import field, frozen

from gateway_plugins.security.audit.hash_chain import chain_files
from gateway_plugins.security.audit.log import DECISION

Table = Mapping[str, Any]
DAY = 86400.0


@frozen
class History:
    """What the audit log remembers of keys and rules."""

    since: float | None = None
    """When its oldest record was made, in seconds since the epoch; `None` when there is none."""
    last_used: Mapping[str, float] = field(factory=dict)
    """By the id of a key."""
    patterns: frozenset[str] = frozenset()
    """Those that decided something, casefolded."""

    def covers(self, days: float, now: float) -> bool:
        """Whether it goes back so many days."""
        return self.since is not None and now - self.since >= days * DAY


@frozen
class Situation:
    """A gateway as it is set up."""

    tables: Table
    """All settings, as merged."""
    config_file: Path | None
    state_folder: Path | None
    now: float
    """Seconds since the epoch."""
    history: History = field(factory=History)
    unused_days: float = 90.0
    """A key or rule that did nothing for so long is unused."""
    expiring_days: float = 7.0
    """A key that ends within this time is to be renewed."""

    @property
    def security(self) -> Table:
        """`[plugins.security]`."""
        return table(table(self.tables, "plugins"), "security")

    @property
    def keys(self) -> dict[str, Table]:
        """The keys, by name."""
        return tables(self.security, "keys")

    @property
    def exposed(self) -> bool:
        """Whether others than this machine can reach the gateway."""
        host = str(table(self.tables, "server").get("host", ""))
        try:
            return not ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"

    def rules(self) -> Iterator[tuple[str, Table]]:
        """Every table that holds patterns, with its name."""
        for name, own in self.keys.items():
            yield f"[plugins.security.keys.{name}]", own
        for name, own in tables(self.security, "namespaces").items():
            yield f"[plugins.security.namespaces.{name}]", own
        yield "[plugins.security.rules]", table(self.security, "rules")


def table(of: Table, name: str) -> Table:
    """A table in a table; an empty one when there is none."""
    value = of.get(name)
    return value if isinstance(value, dict) else {}


def tables(of: Table, name: str) -> dict[str, Table]:
    """The tables in a table in a table, by name."""
    return {str(key): value for key, value in table(of, name).items() if isinstance(value, dict)}


def patterns(of: Table, name: str) -> list[str]:
    """A list of patterns."""
    value = of.get(name)
    return [str(pattern) for pattern in value] if isinstance(value, list) else []


def moment(value: Any) -> float | None:
    """A time as settings have it, ISO 8601 or TOML's own, in seconds since the epoch; `None` when it is none."""
    try:
        parsed = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp()


def read_history(state_folder: Path | None) -> History:
    """Read all audit logs of a folder. Lines that are none are left out."""
    since: float | None = None
    last_used: dict[str, float] = {}
    seen: set[str] = set()
    for path in _logs(state_folder):
        for record in _records(path):
            ts = record.get("ts")
            if not isinstance(ts, int | float):
                continue
            since = ts if since is None else min(since, ts)
            if record.get("event") != DECISION:
                continue
            if key := record.get("key"):
                last_used[key] = max(ts, last_used.get(key, 0.0))
            if pattern := record.get("pattern"):
                seen.add(str(pattern).casefold())
    return History(since, last_used, frozenset(seen))


def _logs(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    return [file for head in sorted(folder.glob("audit*.head")) for file in chain_files(folder / f"{head.stem}.jsonl")]


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(record, dict):
                    yield record
    except OSError:
        return
