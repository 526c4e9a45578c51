"""Compares what an agent declares with what is installed, as its distributions' metadata say.

It installs nothing and imports none of what it checks.
"""

import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from gateway_plugins.requirements.declarations import Declaration, Declared

GATEWAY = "agent-gateway"


@frozen
class Finding:
    """How one requirement stands."""

    declared: Declared
    problem: str | None
    """What is wrong, such as `conflicts with installed attrs 26.1.0`; none when it is met."""

    @property
    def state(self) -> str:
        """`ok`, or what is wrong."""
        return self.problem or "ok"


def check(declaration: Declaration) -> list[Finding]:
    """How each requirement whose marker holds stands; constraints count for the projects that are required."""
    limits: dict[str, list[Requirement]] = {}
    for constraint in declaration.constraints:
        if constraint.applies:
            limits.setdefault(constraint.project, []).append(constraint.requirement)
    findings = []
    for declared in declaration.requirements:
        if declared.applies:
            asked = [declared.requirement, *limits.get(declared.project, ())]
            findings.append(Finding(declared, next(_problems(asked, set()), None)))
    return findings


def check_python(declaration: Declaration) -> str | None:
    """What is wrong with the Python that runs; none when it is one that the agent asks for."""
    running = platform.python_version()
    if declaration.python is None or declaration.python.specifier.contains(running, prereleases=True):
        return None
    return f"Python {declaration.python.specifier} is asked for, and this is Python {running}"


def needs_of(project: str) -> list[tuple[str, Requirement]]:
    """What an installed project needs, all the way down, with the distribution that says so; nothing when it is absent.

    Only requirements that limit versions are among them.
    """
    return [(f"{name} {version}", r) for name, version, r in _closure(Requirement(project), set()) if r.specifier]


def _problems(asked: Iterable[Requirement], seen: set[tuple[str, str]]) -> Iterator[str]:
    for requirement in asked:
        found = _installed(requirement.name)
        if found is None:
            yield "missing"
            continue
        version, needs = found
        if not _contains(requirement, version):
            yield f"conflicts with installed {requirement.name} {version}"
        for need in _of_extras(requirement, needs, seen):
            for problem in _problems([need], seen):
                yield f"{problem}: its extra needs {need}" if ": " not in problem else problem


def _of_extras(requirement: Requirement, needs: list[Requirement], seen: set[tuple[str, str]]) -> Iterator[Requirement]:
    """What the extras that a requirement names add, each extra of a project once: extras may name themselves."""
    for extra in sorted(requirement.extras):
        key = (canonicalize_name(requirement.name), canonicalize_name(extra))
        if key not in seen:
            seen.add(key)
            yield from (n for n in needs if _holds(n, extra) and not _holds(n, ""))


def _closure(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[tuple[str, str, Requirement]]:
    found = _installed(requirement.name)
    if found is None:
        return
    version, needs = found
    key = (canonicalize_name(requirement.name), "")
    wanted = [] if key in seen else [n for n in needs if _holds(n, "")]
    seen.add(key)
    for need in [*wanted, *_of_extras(requirement, needs, seen)]:
        yield requirement.name, version, need
        yield from _closure(need, seen)


def _installed(name: str) -> tuple[str, list[Requirement]] | None:
    """The version of an installed project, and what it says that it needs."""
    try:
        found = distribution(name)
        version = found.version
    except (PackageNotFoundError, ValueError, KeyError):
        return None
    return (version, list(_parsed(found.requires or ()))) if version else None


def _parsed(texts: Iterable[str]) -> Iterator[Requirement]:
    for text in texts:
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue  # an old distribution's mistake is not the agent's


def _holds(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _contains(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return not requirement.specifier
