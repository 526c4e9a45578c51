"""The tables of `[plugins.security]` as written. Values of a wrong type are ignored."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway_core import AuditContext

Table = Mapping[str, Any]


def named_tables(context: AuditContext, kind: str) -> dict[str, Table]:
    """The tables `[plugins.security.KIND.NAME]` by name."""
    return {name: own for name, own in _table(context, kind).items() if isinstance(own, dict)}


def rule_tables(context: AuditContext) -> Iterator[tuple[str, Table]]:
    """Every table that contains patterns, with its heading."""
    for kind in ("keys", "namespaces"):
        for name, table in named_tables(context, kind).items():
            yield f"[plugins.security.{kind}.{name}]", table
    yield "[plugins.security.rules]", _table(context, "rules")


def patterns(table: Table, name: str) -> list[str]:
    """The list of patterns under a key; empty without one."""
    value = table.get(name)
    return [str(pattern) for pattern in value] if isinstance(value, list) else []


def _table(context: AuditContext, name: str) -> Table:
    security = context.tables["plugins"].get("security")
    table = security.get(name) if isinstance(security, dict) else None
    return table if isinstance(table, dict) else {}
