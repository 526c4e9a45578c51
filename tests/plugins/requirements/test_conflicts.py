"""Ranges that no version is in are found, and ranges that have one are left alone."""

import pytest
from gateway_plugins.requirements.conflicts import Claim, claims_of_the_gateway, find_conflicts
from packaging.specifiers import SpecifierSet


def claims(*specifiers, constraint=False, project="x"):
    return [Claim(project, SpecifierSet(s), f"agent {n}", f"f:{n}", constraint) for n, s in enumerate(specifiers)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("==1", "==2"),
        ("<2", ">=2"),
        ("<2", ">2"),
        ("~=1.4.2", "==1.5"),
        ("==1.*", ">=2,<3"),
        (">=1,<2", "!=1.*"),
        ("==1!1.0", "<5"),
        (">1", "<=1.0"),
        ("==1.0", "!=1.0"),
    ],
)
def test_disjoint(one, other):
    [conflict] = find_conflicts(claims(one, other), [])
    assert "no version of x satisfies all: agent 0 wants" in str(conflict)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("==1", "==1.0"),
        (">=1", "<2"),
        (">1", "<1.0.1"),
        ("~=1.4.2", ">1.4.9"),
        ("==1.4.*", ">1.4.9"),
        (">=1.5,<2", "!=1.5.*"),
        (">=1,!=1.*", "<3"),
        ("<2", "!=1"),
        (">0", "<1"),
        ("==1.0rc1", ">=1.0rc1"),
        ("===weird", "==1"),
        ("==1.0+local", "==1.0"),
        (">2023.12.31", "<2024"),
    ],
)
def test_satisfiable(one, other):
    assert find_conflicts(claims(one, other), []) == []


def test_three_that_only_together_are_impossible():
    [conflict] = find_conflicts(claims(">=1,<=2", "!=1.*", "!=2.*"), [])
    assert len(conflict.claims) == 3


def test_other_projects_and_other_agents_conflicts_are_nobodys_business_here():
    one, other = claims("==1", "==2")
    assert find_conflicts([], [one, other]) == []
    assert find_conflicts([one], claims("==2", project="y")) == []
    assert len(find_conflicts([one], [other])) == 1


def test_two_that_only_limit_versions_do_not_conflict():
    assert find_conflicts(claims("==1", "==2", constraint=True), []) == []


def test_the_gateway_itself_takes_part():
    [conflict] = find_conflicts(claims("==1.0", project="openai"), claims_of_the_gateway())[:1]
    assert "the gateway itself wants openai" in str(conflict)
