"""The settings become keys and levels of rules that are ready to be asked. Frozen: a reload makes another one.

It decides nothing; `rules.py` does.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from gateway_core import ConfigError
from gateway_plugins.security.keys.key_ring import KeyRing, read_keys
from gateway_plugins.security.patterns import PatternSet, Segments, of_agents, parse
from gateway_plugins.security.settings import KeySettings, NamespaceSettings, RuleSettings, Settings

TOOL_SOURCES = ("sdk-native", "gateway", "mcp", "hosted")
_ANY = ""


class Matcher:
    """The patterns of one list, by the source of tools that they are for.

    Args:
        patterns: As written: `NAME`, or for tools also `SOURCE:NAME`.
        kind: `agents`, `modules` or `tools`.

    Raises:
        ValueError: One is no pattern.
    """

    def __init__(self, patterns: Iterable[str], kind: str) -> None:
        by_source: dict[str, list[tuple[str, Segments]]] = {}
        for text in patterns:
            source, segments = _parse(text, kind)
            by_source.setdefault(source, []).append((text, segments))
        self._sets = {source: PatternSet(listed) for source, listed in by_source.items()}

    def first(self, names: Sequence[Segments], source: str | None) -> str | None:
        """The first pattern, as written, that means one of a subject's names."""
        for group in (_ANY, source or _ANY):
            patterns = self._sets.get(group)
            for name in names if patterns is not None else ():
                assert patterns is not None
                if (found := patterns.first(name)) is not None:
                    return found
        return None


@frozen
class Level:
    """The rules of one table."""

    source: str
    """`key`, `namespace` or `global`."""
    place: str
    """The table, for operators."""
    allow: Mapping[str, Matcher]
    """By kind of question; a kind that is not here is not spoken of."""
    deny: Mapping[str, Matcher]
    only: frozenset[str] = frozenset()
    """The kinds of which nothing is allowed that `allow` does not name."""
    native_tools: bool | None = None
    """Whether agents' own tools may be called that no rule names; `None` where the table does not say."""


@frozen
class Policy:
    """Everything that one version of the settings says."""

    keys: KeyRing
    key_levels: Mapping[str, Level]
    """By the key's id."""
    namespaces: Mapping[str, Level]
    """By the folded name of a namespace or the id of an agent."""
    everywhere: Level
    admin_keys_may_chat: bool

    @property
    def guards(self) -> bool:
        """Whether there is any key. One that is expired or disabled counts: the gateway must not open by itself."""
        return bool(self.keys.by_id)


def read_policy(settings: Settings) -> Policy:
    """The policy that the settings say.

    Raises:
        ConfigError: A key or a pattern is wrong.
    """
    keys = read_keys(settings.keys)
    namespaces: dict[str, Level] = {}
    for name, table in settings.namespaces.items():
        if namespaces.setdefault(name.casefold(), level := _namespace(name, table)) is not level:
            raise ConfigError(
                "is there twice, in different case",
                source=f"[plugins.security.namespaces.{name}]",
                hint="names compare case-insensitively; make one table of the two",
            )
    return Policy(
        keys,
        {table.id: _key(name, table) for name, table in settings.keys.items()},
        namespaces,
        _everywhere(settings.rules),
        settings.admin_keys_may_chat,
    )


def _key(name: str, table: KeySettings) -> Level:
    place = f"[plugins.security.keys.{name}]"
    lists = {"agents": table.agents, "tools": table.tools}
    return Level(
        "key",
        place,
        _matchers(place, "", {kind: listed for kind, listed in lists.items() if listed is not None}),
        _matchers(place, "deny_", {"agents": table.deny_agents, "tools": table.deny_tools}),
        # A key's list is all that the key may use: what holds for everybody must not widen it.
        only=frozenset(kind.removesuffix("s") for kind, listed in lists.items() if listed is not None),
    )


def _namespace(name: str, table: NamespaceSettings) -> Level:
    native = None if table.native_tools is None else table.native_tools == "allow"
    return _level("namespace", f"[plugins.security.namespaces.{name}]", table, native)


def _everywhere(table: RuleSettings) -> Level:
    return _level("global", "[plugins.security.rules]", table, table.native_tools == "allow")


def _level(source: str, place: str, table: NamespaceSettings | RuleSettings, native: bool | None) -> Level:
    allow = {"agents": table.agents, "tools": table.tools, "modules": table.modules or []}
    deny = {"agents": table.deny_agents, "tools": table.deny_tools, "modules": table.deny_modules}
    only = frozenset({"module"}) if table.modules is not None else frozenset()
    return Level(source, place, _matchers(place, "", allow), _matchers(place, "deny_", deny), only, native)


def _matchers(place: str, prefix: str, lists: Mapping[str, list[str]]) -> dict[str, Matcher]:
    matchers = {}
    for kind, patterns in lists.items():
        for text in patterns:
            try:
                _parse(text, kind)
            except ValueError as error:
                raise ConfigError(
                    f"{text!r} is no pattern: {error}", source=f"{place} {prefix}{kind}", hint='such as "labs/*"'
                ) from None
        if patterns:
            matchers[kind.removesuffix("s")] = Matcher(patterns, kind)
    return matchers


def _parse(text: str, kind: str) -> tuple[str, Segments]:
    if kind != "tools":
        return _ANY, of_agents(parse(text))
    source, colon, name = text.partition(":")
    if not colon:
        return _ANY, parse(text)
    if source not in TOOL_SOURCES:
        raise ValueError(f"before the colon stands one of {', '.join(TOOL_SOURCES)}")
    return source, parse(name)
