"""The tables of `[plugins.security]` as written. Values of a wrong type are ignored."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway_core import AuditContext

Table = Mapping[str, Any]


def key_tables(context: AuditContext) -> dict[str, Table]:
    """The tables `[plugins.security.keys.NAME]` by name."""
    return _tables(context, "keys")


def rule_tables(context: AuditContext) -> Iterator[tuple[str, Table]]:
    """Every table that contains patterns, with its heading."""
    for kind in ("keys", "namespaces"):
        for name, table in _tables(context, kind).items():
            yield f"[plugins.security.{kind}.{name}]", table
    yield "[plugins.security.rules]", _table(_security(context), "rules")


def patterns(table: Table, name: str) -> list[str]:
    """The list of patterns under a key; empty without one."""
    value = table.get(name)
    return [str(pattern) for pattern in value] if isinstance(value, list) else []


def _tables(context: AuditContext, kind: str) -> dict[str, Table]:
    return {name: own for name, own in _table(_security(context), kind).items() if isinstance(own, dict)}


def _security(context: AuditContext) -> Table:
    return _table(context.tables["plugins"], "security")


def _table(table: Table, name: str) -> Table:
    value = table.get(name)
    return value if isinstance(value, dict) else {}
