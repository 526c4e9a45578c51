"""Finds settings without effect, usually because a name is misspelt: unknown agents and principals, expired keys."""

import time
from collections.abc import Iterable, Iterator

from gateway_core import SUSPICIOUS, Catalog, ConfigError, PatternSet, did_you_mean, parse_pattern, split_name
from gateway_plugins.security.access_query import of_agents
from gateway_plugins.security.keys.key_ring import moment
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


def unknown_principals(settings: Settings, renderings: Iterable[str]) -> Iterator[ConfigError]:
    """Yield a warning for each principal of a setting that owns no key, and for each expired key.

    Args:
        settings: The settings, whose keys are valid.
        renderings: The principals of `[clients] principals`.
    """
    if not settings.keys:
        return
    principals = {key.principal or name for name, key in settings.keys.items()}
    places = {"[clients] principals": renderings, "[plugins.security.overrides] granters": settings.overrides.granters}
    for place, names in places.items():
        for name in sorted({*names} - principals):
            hint = did_you_mean(name, principals)
            yield ConfigError(f"no key belongs to the principal '{name}'", source=place, hint=hint, code=SUSPICIOUS)
    for name, key in settings.keys.items():
        if key.expires is not None and moment(key.expires) < time.time():
            yield ConfigError(
                f"the key expired at {key.expires}",
                source=f"[plugins.security.keys.{name}] expires",
                hint=f"remove the table, or create a new key: agent-gateway keys create {name}",
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
