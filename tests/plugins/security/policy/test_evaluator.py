"""Precedence of levels: every combination, and properties that hold for any settings."""

import itertools

import pytest
from gateway_plugins.security.access_query import AccessQuery
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from gateway_core import ConfigError
from tests.plugins.security.support import OneOverride, key_table, policy, rules

AGENT = "labs/Research"
LISTS = {
    "allow": {"agents": [AGENT]},
    "deny": {"deny_agents": [AGENT]},
    "both": {"agents": [AGENT], "deny_agents": [AGENT]},
}
SAYS = {"none": "none", "allow": "allow", "deny": "deny", "both": "deny"}


def query(agent=AGENT, principal="ann", key="agw_ann", kind="agent", **more):
    return AccessQuery(kind, agent, principal, key, **more)


def table(key, inner, outer, everywhere):
    return {
        "keys": {"ann": key_table(principal="ann") | {"id": "agw_ann"} | LISTS.get(key, {})},
        "namespaces": {"labs/Research": LISTS.get(inner, {}), "labs": LISTS.get(outer, {})},
        "rules": LISTS.get(everywhere, {}),
    }


LEVELS = list(itertools.product([False, True], *[["none", "allow", "deny", "both"]] * 4))


@pytest.mark.parametrize(("override", "key", "inner", "outer", "everywhere"), LEVELS)
def test_the_first_level_that_does_not_abstain_decides(override, key, inner, outer, everywhere):
    overrides = OneOverride("agent", AGENT, "ann") if override else None
    verdict = rules(table(key, inner, outer, everywhere), overrides).decide(query())
    answers = [
        ("override", None, "allow" if override else "none"),
        ("key", "[plugins.security.keys.ann]", SAYS[key]),
        ("namespace", "[plugins.security.namespaces.labs/Research]", SAYS[inner]),
        ("namespace", "[plugins.security.namespaces.labs]", SAYS[outer]),
        ("global", "[plugins.security.rules]", SAYS[everywhere]),
        ("default", None, "deny"),
    ]
    deciding = next(i for i, (_, _, answer) in enumerate(answers) if answer != "none")
    source, _, answer = answers[deciding]
    assert (verdict.decision.source, verdict.decision.allowed) == (source, answer == "allow")
    assert verdict.decision.pattern == (None if source == "default" else AGENT)
    assert verdict.decision.override == ("ovr_1" if override else None)
    assert [(s.source, s.answer) for s in verdict.chain] == [(s, a) for s, _, a in answers[: deciding + 1]]
    assert [s.place for s in verdict.chain][1:] == [p for _, p, _ in answers[1 : deciding + 1]]


def test_rules_for_all_callers_do_not_extend_a_keys_allow_list():
    broad = {"agents": ["**"]}
    keys = {"ann": key_table(id="agw_ann", agents=["labs/a"])}
    asked = rules({"keys": keys, "namespaces": {"labs": broad}, "rules": broad})
    assert asked.decide(query("labs/a")).decision.allowed
    refused = asked.decide(query("labs/b")).decision
    assert (refused.allowed, refused.source, refused.pattern) == (False, "key", None)
    assert refused.reason == "not in this key's allow list"
    # A key without an allow list defers to the next levels.
    keys = {"ann": key_table(id="agw_ann", deny_agents=["labs/a"])}
    asked = rules({"keys": keys, "rules": broad})
    assert not asked.decide(query("labs/a")).decision.allowed
    assert asked.decide(query("labs/b")).decision.source == "global"


@pytest.mark.parametrize(
    ("agent", "tables"),
    [
        ("labs/deep/X", ["labs/deep/X", "labs/deep", "labs"]),
        ("LABS/Deep/x", ["labs/deep/X", "labs/deep", "labs"]),
        ("X", ["X", "default"]),
        ("default/X", ["X", "default"]),
        ("labs2/X", []),
    ],
)
def test_tables_that_apply_to_an_agent(agent, tables):
    names = ["labs/deep/X", "labs/deep", "labs", "X", "default"]
    verdict = rules({"namespaces": {name: {} for name in names}}).decide(query(agent, key=None))
    looked = [step.place for step in verdict.chain if step.source == "namespace"]
    assert looked == [f"[plugins.security.namespaces.{name}]" for name in tables]


@pytest.mark.parametrize("pattern", ["Secret", "default/Secret", "SECRET", "default/*", "default/**", "*"])
@pytest.mark.parametrize("asked", ["Secret", "default/Secret", "secret"])
def test_a_top_level_agent_is_denied_by_any_of_its_names(pattern, asked):
    verdict = rules({"rules": {"agents": ["**"], "deny_agents": [pattern]}}).decide(query(asked, key=None))
    assert (verdict.decision.allowed, verdict.decision.pattern) == (False, pattern)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({"disabled": True}, "the key is disabled"),
        ({"expires": "2027-01-01"}, "the key is expired"),
        ({"admin": True}, "admin keys may not use agents"),
        (None, "the key does not exist"),
    ],
)
def test_an_override_does_not_make_an_invalid_key_valid(key, reason):
    keys = {"ann": key_table(**{"id": "agw_ann", "agents": ["**"], **key})} if key is not None else {}
    # 2027-01-15
    decided = rules({"keys": keys, "rules": {"agents": ["**"]}}, OneOverride("agent", AGENT, "ann")).decide(query())
    assert (decided.decision.allowed, decided.decision.reason) == (False, reason)
    assert len(decided.chain) == 1


def test_an_admin_key_may_chat_if_enabled_and_allowed_by_rules():
    keys = {"ann": key_table(id="agw_ann", admin=True)}
    assert not rules({"keys": keys, "admin_keys_may_chat": True}).decide(query()).decision.allowed
    both = {"keys": keys, "admin_keys_may_chat": True, "rules": {"agents": ["**"]}}
    assert rules(both).decide(query()).decision.allowed


def ask_tool(config, name, source="sdk-native", server=None, agent="labs/Research", key=None):
    asked = AccessQuery("tool", name, "ann", key, agent, source, server)
    return rules(config).decide(asked)


@pytest.mark.parametrize(
    ("pattern", "name", "source", "server", "expected"),
    [
        ("search", "search", "gateway", None, True),
        ("search", "search", "mcp", "web", True),
        ("mail/*", "mail/send", "gateway", None, True),
        ("gateway:mail/*", "mail/send", "gateway", None, True),
        ("gateway:search", "search", "mcp", "web", False),
        ("gateway:search", "search", "sdk-native", None, False),
        ("mcp:web/search", "search", "mcp", "web", True),
        ("web/search", "search", "mcp", "web", True),
        ("mcp:search", "search", "mcp", "web", True),
        ("mcp:web/*", "search", "mcp", "web2", False),
        # A server whose tool has the name of another server's tool.
        ("mcp:web/search", "web/search", "mcp", "web", True),
        ("web/*", "web/search", "mcp", "web", True),
        ("search", "web/search", "mcp", "web", True),
        ("web/search", "web/search", "sdk-native", None, False),
        ("mcp:web/search", "web/search", "mcp", "evil", False),
        ("web/search", "web/search", "mcp", "evil", False),
        ("mcp:evil/**", "web/search", "mcp", "evil", True),
        ("mcp:**", "web/search", "mcp", "evil", True),
        ("hosted:web_search", "web_search", "hosted", None, True),
    ],
)
def test_tools_match_by_name_source_and_server(pattern, name, source, server, expected):
    verdict = ask_tool({"rules": {"deny_tools": [pattern]}}, name, source, server)
    assert (verdict.decision.source == "global") is expected


def test_agents_own_tools_are_allowed_unless_a_table_refuses_them():
    assert ask_tool({}, "t").decision.allowed
    for source in ("gateway", "mcp", "hosted"):
        assert not ask_tool({}, "t", source).decision.allowed
        assert ask_tool({}, "t", source).by_default
    refusing = {"namespaces": {"labs": {"native_tools": "refuse", "tools": ["known"]}}}
    assert not ask_tool(refusing, "t").decision.allowed
    assert ask_tool(refusing, "known").decision.allowed
    assert ask_tool(refusing, "t", agent="other/X").decision.allowed
    inner = {"namespaces": {**refusing["namespaces"], "labs/Research": {"native_tools": "allow"}}}
    assert ask_tool(inner, "t").decision.allowed
    assert not ask_tool(inner, "t", agent="labs/Y").decision.allowed
    assert not ask_tool({"rules": {"native_tools": "refuse"}}, "t").decision.allowed


CLOSED = {"rules": {"closed_tools": ["mcp"]}}


@pytest.mark.parametrize(
    ("config", "name", "source", "server", "agent", "expected"),
    [
        ({"rules": {"block_tools": ["rm"]}}, "rm", "sdk-native", None, "labs/Research", False),
        ({"rules": {"block_tools": ["RM"]}}, "rm", "sdk-native", None, "labs/Research", False),
        ({"rules": {"block_tools": ["rm"]}}, "rmdir", "sdk-native", None, "labs/Research", True),
        ({"rules": {"block_tools": ["mail_*"]}}, "mail_send", "sdk-native", None, "labs/Research", False),
        ({"rules": {"block_tools": ["mail/*"], "tools": ["**"]}}, "mail/send", "gateway", None, "X", False),
        ({"rules": {"block_tools": ["mail/*"], "tools": ["**"]}}, "mailer/send", "gateway", None, "X", True),
        ({"rules": {"block_tools": ["mail__send"], "tools": ["**"]}}, "mail/send", "gateway", None, "X", False),
        ({"rules": {"block_tools": ["gateway:mail__*"], "tools": ["**"]}}, "mail/send", "gateway", None, "X", False),
        ({"namespaces": {"default/X": {"block_tools": ["x"]}}}, "x", "sdk-native", None, "X", False),
        ({"rules": {"block_tools": ["files/*"]}}, "read", "mcp", "files", "X", False),
        ({"namespaces": {"labs/Research": {"block_tools": ["x"]}}}, "x", "sdk-native", None, "labs/research", False),
        ({"namespaces": {"labs/Research": {"block_tools": ["x"]}}}, "x", "sdk-native", None, "labs/Other", True),
        ({"namespaces": {"X": {"only_tools": ["github/*"]}}}, "github/x", "mcp", "github", "X", True),
        ({"namespaces": {"X": {"only_tools": ["github/*"]}}}, "github/x", "mcp", "evil", "X", False),
        ({"namespaces": {"X": {"only_tools": ["github/*"]}}}, "evil/github/x", "mcp", "evil", "X", False),
        ({"namespaces": {"X": {"only_tools": ["github/*"]}}}, "github__x", "sdk-native", None, "X", False),
        ({"namespaces": {"X": {"only_tools": ["x"]}}}, "x", "sdk-native", None, "X", True),
        ({"namespaces": {"X": {"only_tools": ["x"]}}}, "y", "sdk-native", None, "X", False),
        ({"namespaces": {"X": {"only_tools": []}}}, "y", "sdk-native", None, "X", False),
        ({"namespaces": {"X": {"only_tools": ["x"], "tools": ["y"]}}}, "y", "sdk-native", None, "X", False),
        ({"namespaces": {"X": {"only_tools": ["**"], "deny_tools": ["x"]}}}, "x", "sdk-native", None, "X", False),
        (CLOSED, "x", "mcp", "s", "X", False),
        (CLOSED, "x", "sdk-native", None, "X", True),
        (
            {"rules": {"closed_tools": ["mcp"]}, "namespaces": {"X": {"only_tools": ["s/*"]}}},
            "x",
            "mcp",
            "s",
            "X",
            True,
        ),
        ({"rules": {"closed_tools": ["mcp"]}, "namespaces": {"X": {"tools": ["s/*"]}}}, "x", "mcp", "s", "X", True),
        ({"namespaces": {"X": {"closed_tools": ["sdk-native"]}}}, "x", "sdk-native", None, "X", False),
    ],
)
def test_blocked_exclusive_and_closed_tools(config, name, source, server, agent, expected):
    asked = AccessQuery("tool", name, "ann", None, agent, source, server)
    # Agents' own tools are open by default; these tools of other sources are not.
    assert rules(config).tool(asked, is_open=source == "sdk-native").decision.allowed is expected


def test_neither_a_key_nor_an_override_allows_a_blocked_tool():
    keys = {"ann": key_table(id="agw_ann", tools=["**"])}
    for table in ({"rules": {"block_tools": ["t"]}}, {"namespaces": {"labs": {"only_tools": ["other"]}}}):
        config = {"keys": keys, **table}
        override = OneOverride("tool", "t", "ann")
        asked = AccessQuery("tool", "t", "ann", "agw_ann", "labs/Research", "sdk-native")
        verdict = rules(config, override).decide(asked)
        assert not verdict.decision.allowed
        assert verdict.decision.override is None
        assert verdict.chain[-1].place in ("[plugins.security.rules]", "[plugins.security.namespaces.labs]")
    assert rules({"keys": keys, "rules": {"deny_tools": ["t"]}}, override).decide(asked).decision.allowed


def test_a_keys_tools_are_an_allow_list():
    config = {"keys": {"ann": key_table(id="agw_ann", tools=["known"])}, "rules": {"tools": ["**"]}}
    assert ask_tool(config, "known", key="agw_ann").decision.allowed
    assert not ask_tool(config, "other", key="agw_ann").decision.allowed
    assert ask_tool(config, "other").decision.allowed


def decide_module(config, name):
    return rules(config).decide(AccessQuery("module", name, "gateway")).decision


def module(config, name):
    return decide_module(config, name).allowed


def test_modules_are_loaded_unless_a_table_blocks_them():
    assert module({}, "labs/X")
    assert not module({"rules": {"deny_modules": ["labs/**"]}}, "labs/X")
    nearer = {"namespaces": {"labs": {"modules": ["labs/Good"]}}, "rules": {"deny_modules": ["**"]}}
    assert module(nearer, "labs/Good")
    assert decide_module(nearer, "labs/X").reason == "not in this namespace's allow list"
    assert not module({"rules": {"modules": []}}, "X"), "an empty allow list allows nothing"
    assert decide_module({"rules": {"modules": ["Y"]}}, "X").reason == "not in the global allow list"


PATTERNS = st.sampled_from(["a", "b", "labs/a", "labs/b", "labs/*", "labs/**", "*", "**", "labs/deep/a", "default/a"])
AGENTS = st.sampled_from(["a", "b", "labs", "labs/a", "labs/b", "labs/deep/a", "labs_evil/a", "LABS/A"])
LISTED = st.lists(PATTERNS, max_size=3)
TABLES = st.fixed_dictionaries({"agents": LISTED, "deny_agents": LISTED})
KEYED = st.fixed_dictionaries({"deny_agents": LISTED}, optional={"agents": LISTED})
POLICIES = st.fixed_dictionaries(
    {
        "key": KEYED,
        "namespaces": st.dictionaries(st.sampled_from(["labs", "labs/deep", "default"]), TABLES),
        "rules": TABLES,
    }
)
HASH = "sha256:" + "0" * 64


def built(drawn):
    keys = {"ann": {"id": "agw_ann", "hash": HASH, **drawn["key"]}}
    return rules({"keys": keys, "namespaces": drawn["namespaces"], "rules": drawn["rules"]})


def tables_of(drawn):
    return [drawn["key"], *drawn["namespaces"].values(), drawn["rules"]]


@tries(max_examples=150, deadline=None)
@given(POLICIES, AGENTS, st.data())
def test_removing_an_allow_pattern_never_allows_more(drawn, agent, data):
    before = built(drawn).decide(query(agent)).decision.allowed
    allowing = [t for t in tables_of(drawn) if t.get("agents")]
    if allowing:
        listed = data.draw(st.sampled_from(allowing))["agents"]
        listed.pop(data.draw(st.integers(0, len(listed) - 1)))
        assert built(drawn).decide(query(agent)).decision.allowed <= before


@tries(max_examples=150, deadline=None)
@given(POLICIES, AGENTS, PATTERNS, st.data())
def test_adding_a_deny_pattern_never_allows_more(drawn, agent, pattern, data):
    before = built(drawn).decide(query(agent)).decision.allowed
    data.draw(st.sampled_from(tables_of(drawn)))["deny_agents"].append(pattern)
    assert built(drawn).decide(query(agent)).decision.allowed <= before


@tries(max_examples=150, deadline=None)
@given(POLICIES, AGENTS)
def test_more_specific_levels_take_precedence(drawn, agent):
    chain = built(drawn).decide(query(agent)).chain
    assert all(step.answer == "none" for step in chain[:-1])
    assert chain[-1].answer in ("allow", "deny")
    order = ["override", "key", "namespace", "global", "default"]
    places = [order.index(step.source) for step in chain]
    assert places == sorted(places)


@tries(max_examples=150, deadline=None)
@given(POLICIES, AGENTS)
def test_decisions_are_case_insensitive(drawn, agent):
    asked = built(drawn)
    assert len({asked.decide(query(name)).decision.allowed for name in (agent, agent.upper(), agent.lower())}) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rules": {"agents": ["lab**"]}}, "[plugins.security.rules] agents: invalid pattern 'lab**'"),
        ({"namespaces": {"labs/*": {}}}, "[plugins.security.namespaces.labs/*]: the name of a table"),
        ({"namespaces": {"labs/": {}}}, "[plugins.security.namespaces.labs/]: a segment"),
        ({"rules": {"block_tools": ["a//b"]}}, "[plugins.security.rules] block_tools: invalid pattern 'a//b'"),
        ({"rules": {"closed_tools": ["gatway"]}}, "[plugins.security.rules] closed_tools"),
        ({"rules": {"deny_tools": ["x:y"]}}, "the source before the colon must be one of"),
        ({"rules": {"agents": ["a:b", ""]}}, "invalid pattern ''"),
        ({"namespaces": {"labs": {"deny_agents": ["/"]}}}, "[plugins.security.namespaces.labs] deny_agents"),
        ({"namespaces": {"labs": {}, "LABS": {}}}, "duplicate table"),
        ({"namespaces": {"labs": {"agent": []}}}, "did you mean 'agents'?"),
        ({"keys": {"a": key_table(hash="x")}}, "[plugins.security.keys.a] hash: not a valid key hash"),
        ({"keys": {"a": key_table(hash="agw_12345678_secret")}}, "do not put the key itself here"),
        ({"keys": {"a": key_table(id="a b")}}, "[plugins.security.keys.a] id"),
        ({"keys": {"a": key_table(expires="soon")}}, "[plugins.security.keys.a] expires: not a valid date"),
        ({"keys": {"a": key_table(scopes=["read"])}}, "only admin keys have scopes"),
        ({"keys": {"a": key_table(admin=True, scopes=["all"])}}, "one of: read, reload, override"),
        ({"keys": {"a": key_table(id="same"), "b": key_table(id="same")}}, "have the same id or hash"),
        ({"keys": {"a": {"hash": HASH, "id": "x"}, "b": {"hash": HASH, "id": "y"}}}, "have the same id or hash"),
        ({"keys": {"a": {"id": "x"}}}, "hash: required key is missing"),
    ],
)
def test_an_invalid_table_is_a_config_error_with_its_source(table, message):
    with pytest.raises(ConfigError) as caught:
        policy(table)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
