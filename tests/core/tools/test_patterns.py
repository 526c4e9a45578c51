"""Patterns match whole segments, case-insensitively: a table of near misses, and an oracle with another algorithm."""

import re

import pytest
from gateway_plugins.security.access_query import of_agents
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_core.tools.patterns import PatternSet, parse_pattern, split_name


def matches(pattern: str, name: str) -> bool:
    return PatternSet([(pattern, parse_pattern(pattern))]).first(split_name(name)) is not None


NAMES = st.lists(st.sampled_from(["a", "b", "A", "tools", "tools_evil", "x-1", "ß"]), min_size=1, max_size=5)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "B", "tools", "t*ls", "*_evil", "*o*s", "x*", "*", "**", "x-1", "ss"]),
    min_size=1,
    max_size=5,
)


def oracle(pattern: str, subject: str) -> bool:
    """Match with a regular expression over segments that each end in a slash."""
    segments = pattern.casefold().split("/")
    text = ""
    for position, segment in enumerate(segments):
        if segment == "**":
            text += "(?:[^/]*/)" + ("+" if position and position == len(segments) - 1 else "*")
        else:
            text += "[^/]*".join(map(re.escape, segment.split("*"))) + "/"
    return re.fullmatch(text, subject.casefold() + "/") is not None


@settings(max_examples=3000, deadline=None)
@given(PATTERNS, NAMES)
def test_matching_agrees_with_the_oracle(pattern, name):
    assert matches("/".join(pattern), "/".join(name)) is oracle("/".join(pattern), "/".join(name))


@settings(max_examples=1000, deadline=None)
@given(st.lists(PATTERNS, max_size=6), NAMES)
def test_a_set_returns_the_first_matching_pattern(patterns, name):
    texts, subject = ["/".join(pattern) for pattern in patterns], "/".join(name)
    expected = next((text for text in texts if oracle(text, subject)), None)
    listed = PatternSet((text, parse_pattern(text)) for text in texts)
    assert listed.first(split_name(subject)) == expected
    assert listed.first(split_name(subject)) == expected, "the cached result is the same"


@settings(max_examples=1000, deadline=None)
@given(PATTERNS, NAMES, st.sampled_from(["_evil", "x", ".", "-"]))
def test_a_common_prefix_is_not_a_match(pattern, name, more):
    literal = [segment for segment in pattern if "*" not in segment] or ["a"]
    assert not matches("/".join(literal), "/".join(literal) + more)
    assert not matches("/".join(literal), more + "/".join(literal))


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("tools", "tools", True),
        ("tools", "Tools", True),
        ("TOOLS", "tools", True),
        ("tools", "tools_evil", False),
        ("tools", "tool", False),
        ("tools", "tools/x", False),
        ("tools", "x/tools", False),
        ("tools", "tools ", False),
        ("tools", "tools\n", False),
        ("tools", "", False),
        ("labs/*", "labs/a", True),
        ("labs/*", "labs", False),
        ("labs/*", "labs/a/b", False),
        ("labs/*", "labs_evil/a", False),
        ("labs/*", "x/labs/a", False),
        ("labs/*", "labs/", True),
        ("labs/**", "labs", False),
        ("labs/**", "labs/a", True),
        ("labs/**", "labs/a/b", True),
        ("labs/**", "labs2/a", False),
        ("labs/**", "x/labs/a", False),
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("*", "a", True),
        ("*", "a/b", False),
        ("*/b", "a/b", True),
        ("*/b", "b", False),
        ("**/b", "b", True),
        ("**/b", "x/y/b", True),
        ("**/b", "x/y/bb", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/x/y/c", False),
        ("a/**/b/**", "a/b", False),
        ("a/**/b/**", "a/b/c", True),
        ("a/*/c", "a/b/c", True),
        ("a/*/c", "a/c", False),
        ("mail_*", "mail_send", True),
        ("mail_*", "mail_", True),
        ("mail_*", "mail", False),
        ("mail_*", "mail_a/b", False),
        ("mail_*", "Mail_A", True),
        ("*_send", "mail_send", True),
        ("*_send", "mail_send_all", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "a1c2b", False),
        ("ab*ba", "aba", False),
        ("labs/a*", "labs/abc", True),
        ("labs/a*", "labs/b", False),
        ("**/a*", "x/y/ab", True),
        ("a.b", "axb", False),
        ("a+", "aa", False),
        ("[a]", "a", False),
        ("?", "a", False),
    ],
)
def test_near_misses(pattern, subject, expected):
    assert matches(pattern, subject) is expected


@pytest.mark.parametrize("pattern", ["", "/", "a/", "/a", "a//b", "lab**", "**s", "***", "a/ b", " a", "a/b**c/d"])
def test_malformed_patterns_are_rejected(pattern):
    with pytest.raises(ValueError, match="segment"):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("default/X", ("x",)),
        ("default/*", ("*",)),
        ("default/**", ("*",)),
        ("default", ("default",)),
        ("default/a/b", ("default", "a", "b")),
        ("labs/x", ("labs", "x")),
    ],
)
def test_top_level_agents_have_two_names(written, expected):
    assert of_agents(parse_pattern(written)) == expected


def test_matching_a_long_name_is_fast():
    assert not matches("*a" * 50 + "b", "a" * 100_000)
    assert not matches("/".join(["**", "a"] * 20), "/".join(["a"] * 400 + ["b"]))


def test_the_cache_is_bounded():
    listed = PatternSet([("a", ("a",))])
    for number in range(10_000):
        listed.first((str(number),))
    assert len(listed._cache) <= 4096
