"""Finds settings that match no agent, usually because a name is misspelt."""

from collections.abc import Iterable, Iterator

from gateway_core import SUSPICIOUS, Catalog, ConfigError, PatternSet, did_you_mean, parse_pattern, split_name
from gateway_plugins.security.access_query import of_agents
from gateway_plugins.security.settings import Settings


def unmatched(settings: Settings, catalog: Catalog) -> Iterator[ConfigError]:
    """Yield an error for each table of a namespace without agents, and a warning for each pattern without agents.

    Args:
        settings: The settings, whose patterns are valid.
        catalog: The complete catalog.
    """
    ids = sorted({*catalog.agents, *catalog.broken})
    names = [of_agents(split_name(each)) for each in ids]
    if not ids:
        return
    spaces = {"/".join(name[:length]) for name in names for length in range(1, len(name) + 1)}
    for table in settings.namespaces:
        if "/".join(of_agents(parse_pattern(table))) not in spaces and table.casefold() != "default":
            yield ConfigError(
                f"the rules are for an unknown namespace or agent '{table}'",
                source=f"[plugins.security.namespaces.{table}]",
                hint=did_you_mean(table, _spelled(ids)),
                code="no_such_agent",
            )
    for place, patterns in _lists(settings):
        for text in patterns:
            pattern = PatternSet([(text, of_agents(parse_pattern(text)))])
            if not any(pattern.first(name) for name in names):
                yield ConfigError(
                    f"the pattern {text!r} matches no agent",
                    source=place,
                    hint=did_you_mean(text, ids),
                    code=SUSPICIOUS,
                )


def _spelled(ids: Iterable[str]) -> set[str]:
    parts = (each.split("/") for each in ids)
    return {"/".join(words[:length]) for words in parts for length in range(1, len(words) + 1)}


def _lists(settings: Settings) -> Iterator[tuple[str, list[str]]]:
    """Yield the lists of patterns for agents, with their places."""
    for name, key in settings.keys.items():
        yield f"[plugins.security.keys.{name}] agents", key.agents or []
        yield f"[plugins.security.keys.{name}] deny_agents", key.deny_agents
    tables = {f"namespaces.{name}": table for name, table in settings.namespaces.items()} | {"rules": settings.rules}
    for name, table in tables.items():
        yield f"[plugins.security.{name}] agents", table.agents
        yield f"[plugins.security.{name}] deny_agents", table.deny_agents
