"""The use of keys and patterns, according to the audit logs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from attrs import field, frozen

from gateway_plugins.security.audit.hash_chain import audit_logs, chain_files
from gateway_plugins.security.audit.log import DECISION

DAY = 86400.0


@frozen
class History:
    """The last use of keys, and the patterns that decided a request."""

    since: float | None = None
    """Time of the oldest record, in seconds since the epoch; `None` without records."""
    last_used: Mapping[str, float] = field(factory=dict)
    """Times in seconds since the epoch, by the id of a key."""
    patterns: frozenset[str] = frozenset()
    """The patterns that decided a request, case-folded."""

    def covers(self, days: float, now: float) -> bool:
        """Whether the records cover the last `days` days."""
        return self.since is not None and now - self.since >= days * DAY


def read_history(state_folder: Path | None) -> History:
    """Read all audit logs of a folder. Malformed lines are skipped."""
    since: float | None = None
    last_used: dict[str, float] = {}
    seen: set[str] = set()
    for path in (file for log in audit_logs(state_folder) for file in chain_files(log)):
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
