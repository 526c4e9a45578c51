"""Finds versions that agents ask for and that no single environment can have.

Best effort: versions at the edges of all ranges stand for all versions. Whether one exists, the installer finds out.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from gateway_plugins.requirements.checking import GATEWAY, needs_of
from gateway_plugins.requirements.declarations import Declaration

_PADDING = 5
_HIGH = 99_999


@frozen
class Claim:
    """Somebody asks for some versions of a project."""

    project: str
    specifier: SpecifierSet
    owner: str
    """Such as `agent labs/Research`, or the gateway itself."""
    place: str
    """The file and line, or the distribution, where it is written."""
    constraint: bool = False
    """Whether it only limits the versions, and does not ask for the project."""

    def __str__(self) -> str:
        return f"{self.owner} wants {self.project}{self.specifier} ({self.place})"


@frozen
class Conflict:
    """Claims that cannot hold together."""

    claims: tuple[Claim, ...]

    def __str__(self) -> str:
        return f"no version of {self.claims[0].project} satisfies all: {'; '.join(map(str, self.claims))}"


def claims_of(declaration: Declaration) -> list[Claim]:
    """What an agent's requirements and constraints ask for on this machine."""
    owner = f"agent {declaration.agent_id}"
    required = [(declared, False) for declared in declaration.requirements]
    limited = [(declared, True) for declared in declaration.constraints]
    return [
        Claim(declared.project, declared.requirement.specifier, owner, str(declared.place), constraint)
        for declared, constraint in required + limited
        if declared.applies and declared.requirement.specifier
    ]


def claims_of_the_gateway() -> list[Claim]:
    """What the gateway itself runs on: an agent must not take it away, for they share one environment."""
    return [
        Claim(canonicalize_name(need.name), need.specifier, "the gateway itself", said_by, constraint=True)
        for said_by, need in needs_of(GATEWAY)
    ]


def find_conflicts(own: Sequence[Claim], others: Sequence[Claim]) -> list[Conflict]:
    """Each conflict that at least one of `own` takes part in; two claims each where two are enough, else all.

    Claims that only limit versions are in no conflict with each other: the project may not be needed at all.
    """
    found: list[Conflict] = []
    for project in sorted({claim.project for claim in own}):
        mine = [claim for claim in own if claim.project == project]
        all_claims = [*mine, *(claim for claim in others if claim.project == project)]
        if all(claim.constraint for claim in all_claims):
            continue
        pairs = [Conflict(pair) for pair in _pairs(mine, all_claims) if _impossible(pair)]
        if not pairs and _impossible(all_claims):
            pairs = [Conflict(tuple(all_claims))]
        found += pairs
    return found


def _pairs(mine: list[Claim], all_claims: list[Claim]) -> Iterator[tuple[Claim, ...]]:
    for first, second in itertools.combinations(all_claims, 2):
        if first in mine and not (first.constraint and second.constraint):
            yield first, second


def _impossible(claims: Iterable[Claim]) -> bool:
    specifiers = [specifier for claim in claims for specifier in claim.specifier]
    try:
        return not any(
            all(specifier.contains(candidate, prereleases=True) for specifier in specifiers)
            for candidate in {c for specifier in specifiers for c in _edges(specifier)}
        )
    except (InvalidVersion, ValueError):
        return False  # `===` may compare text that is no version


def _edges(specifier: Specifier) -> Iterator[Version]:
    """Versions at, just below and just above the one that a specifier names."""
    wildcard = specifier.version.endswith(".*")
    edge = Version(specifier.version.removesuffix(".*"))
    yield edge
    yield _version(edge, edge.release)
    padded = edge.release + (0,) * (_PADDING - len(edge.release))
    yield _version(edge, (*padded, 1))
    yield _version(edge, (*edge.release[:-1], edge.release[-1] + 1))
    significant = edge.release
    while significant and significant[-1] == 0 and not wildcard:
        significant = significant[:-1]
    if significant and significant[-1] > 0:
        yield _version(edge, (*significant[:-1], significant[-1] - 1, _HIGH))


def _version(like: Version, release: tuple[int, ...]) -> Version:
    return Version(f"{like.epoch}!{'.'.join(map(str, release))}")
