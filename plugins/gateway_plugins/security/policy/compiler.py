"""Compiles the settings into an immutable policy: keys and levels of rules. A reload compiles a new policy.

The policy is evaluated in `policy/evaluator.py`.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from gateway_core import ConfigError, PatternSet, Problems, Segments, parse_pattern
from gateway_plugins.security.access_query import of_agents
from gateway_plugins.security.keys.key_ring import KeyRing, read_keys
from gateway_plugins.security.settings import KeySettings, NamespaceSettings, Settings

TOOL_SOURCES = ("sdk-native", "gateway", "mcp", "hosted")
_ANY = ""


class Matcher:
    """The compiled patterns of one list, grouped by tool source.

    Args:
        patterns: Patterns as written: `NAME`, or for tools also `SOURCE:NAME`.
        kind: `agents`, `modules` or `tools`.

    Raises:
        ValueError: A pattern is malformed.
    """

    def __init__(self, patterns: Iterable[str], kind: str) -> None:
        by_source: dict[str, list[tuple[str, Segments]]] = {}
        for text in patterns:
            try:
                source, segments = _parse(text, kind)
            except ValueError as error:
                raise ValueError(f"invalid pattern {text!r}: {error}") from None
            by_source.setdefault(source, []).append((text, segments))
        self._sets = {source: PatternSet(listed) for source, listed in by_source.items()}

    def first(self, names: Sequence[Segments], source: str | None) -> str | None:
        """Return a pattern, as written, that matches one of the subject's names; `None` if none does."""
        for group in (_ANY, source or _ANY):
            patterns = self._sets.get(group)
            for name in names if patterns is not None else ():
                assert patterns is not None
                if (found := patterns.first(name)) is not None:
                    return found
        return None


@frozen
class Level:
    """The rules of one settings table."""

    source: str
    """`key`, `namespace` or `global`."""
    place: str
    """The name of the table, such as `[plugins.security.rules]`."""
    allow: Mapping[str, Matcher]
    """The allow rules by kind of query; the level abstains on kinds without an entry."""
    deny: Mapping[str, Matcher]
    only: frozenset[str] = frozenset()
    """The kinds for which `allow` is an allow list: the level denies every subject that is not listed."""
    native_tools: bool | None = None
    """Whether agents' own tools that match no rule may be called; `None` if the table does not set it."""
    block: Matcher | None = None
    """The tools that no other rule and no override can allow."""
    only_tools: Matcher | None = None
    """If set, every tool that it does not match is blocked."""
    closed: frozenset[str] = frozenset()
    """The sources whose tools are denied by default."""


@frozen
class Policy:
    """The compiled form of one version of the settings."""

    keys: KeyRing
    key_levels: Mapping[str, Level]
    """The levels of keys, by key id."""
    namespaces: Mapping[str, Level]
    """The levels of namespaces and agents, by case-folded namespace or agent id."""
    global_level: Level
    admin_keys_may_chat: bool

    @property
    def guards(self) -> bool:
        """Whether any key is configured. Expired and disabled keys count: an expiry must not open the gateway."""
        return bool(self.keys.by_id)


def read_policy(settings: Settings) -> Policy:
    """Compile the settings.

    Raises:
        ConfigError: A key or a pattern is invalid.
    """
    problems = Problems()
    keys, key_levels, rules = KeyRing([]), {}, Level("global", "", {}, {})
    namespaces: dict[str, Level] = {}
    with problems.collected():
        keys = read_keys(settings.keys)
    for name, key in settings.keys.items():
        with problems.collected():
            key_levels[key.id] = _key_level(name, key)
    for name, table in settings.namespaces.items():
        with problems.collected():
            _add_namespace(namespaces, name, table)
    with problems.collected():
        rules = _level("global", "[plugins.security.rules]", settings.rules)
    problems.raise_found()
    return Policy(keys, key_levels, namespaces, rules, settings.admin_keys_may_chat)


def _add_namespace(namespaces: dict[str, Level], name: str, table: NamespaceSettings) -> None:
    place = f"[plugins.security.namespaces.{name}]"
    try:
        segments = of_agents(parse_pattern(name))
    except ValueError as error:
        raise ConfigError(str(error), source=place, hint="name a namespace or the id of an agent") from None
    if any("*" in segment for segment in segments):
        raise ConfigError("the name of a table is not a pattern", source=place, hint="a table covers those below it")
    if namespaces.setdefault("/".join(segments), level := _level("namespace", place, table)) is not level:
        raise ConfigError(
            "duplicate table; the other one differs only in case",
            source=place,
            hint="names are case-insensitive; merge the two tables",
        )


def _key_level(name: str, table: KeySettings) -> Level:
    place = f"[plugins.security.keys.{name}]"
    lists = {"agents": table.agents, "tools": table.tools}
    return Level(
        "key",
        place,
        _matchers(place, "", lists),
        _matchers(place, "deny_", {"agents": table.deny_agents, "tools": table.deny_tools}),
        # A key's list is an allow list: rules for all callers must not extend it.
        only=frozenset(kind.removesuffix("s") for kind, listed in lists.items() if listed is not None),
    )


def _level(source: str, place: str, table: NamespaceSettings) -> Level:
    allow = {"agents": table.agents, "tools": table.tools, "modules": table.modules}
    deny = {"agents": table.deny_agents, "tools": table.deny_tools, "modules": table.deny_modules}
    return Level(
        source,
        place,
        _matchers(place, "", allow),
        _matchers(place, "deny_", deny),
        frozenset({"module"}) if table.modules is not None else frozenset(),
        None if table.native_tools is None else table.native_tools == "allow",
        _matcher(place, "block_tools", table.block_tools, "tools") if table.block_tools else None,
        _matcher(place, "only_tools", table.only_tools, "tools") if table.only_tools is not None else None,
        frozenset(table.closed_tools),
    )


def _matchers(place: str, prefix: str, lists: Mapping[str, list[str] | None]) -> dict[str, Matcher]:
    return {
        kind.removesuffix("s"): _matcher(place, f"{prefix}{kind}", patterns, kind)
        for kind, patterns in lists.items()
        if patterns
    }


def _matcher(place: str, key: str, patterns: list[str], kind: str) -> Matcher:
    try:
        return Matcher(patterns, kind)
    except ValueError as error:
        raise ConfigError(str(error), source=f"{place} {key}", hint='for example "labs/*"') from None


def _parse(text: str, kind: str) -> tuple[str, Segments]:
    if kind != "tools":
        return _ANY, of_agents(parse_pattern(text))
    source, colon, name = text.partition(":")
    if not colon:
        return _ANY, parse_pattern(text)
    if source not in TOOL_SOURCES:
        raise ValueError(f"the source before the colon must be one of {', '.join(TOOL_SOURCES)}")
    return source, parse_pattern(name)
