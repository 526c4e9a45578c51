"""Compares what an agent declares with the metadata of the installed distributions: offline, and without a process."""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from gateway_core import LoadError
from gateway_plugins.requirements.declarations import Declaration, Declared, Location

GATEWAY = "agent-gateway"
OK = "ok"
_MAX_NOTES = 5
_NAME = re.compile(r"[\w.-]+")


def check(declaration: Declaration) -> list[tuple[Declared, str]]:
    """Checks each requirement whose marker holds, with the constraints on its project.

    Returns:
        Each requirement with its state: `ok`, or what is wrong, such as `conflicts with installed attrs 26.1.0`.
    """
    states = []
    limits = [constraint for constraint in declaration.constraints if constraint.applies]
    for one in declaration.requirements:
        if one.applies:
            asked = [one.requirement, *(limit.requirement for limit in limits if limit.project == one.project)]
            states.append((one, next(filter(None, (_problem(each, set()) for each in asked)), OK)))
    return states


def check_python(declaration: Declaration) -> str | None:
    """The reason why the running Python does not fit; `None` when it does."""
    running = platform.python_version()
    if declaration.python is None or declaration.python.specifier.contains(running, prereleases=True):
        return None
    return f"requires Python {declaration.python.specifier}, and this is Python {running}"


def problems_of(declaration: Declaration) -> dict[str, Location]:
    """Everything that is not met now, with the lines that require it."""
    problems = {f"{one.requirement}: {state}": one.location for one, state in check(declaration) if state != OK}
    python = check_python(declaration)
    return {python: declaration.python.location, **problems} if declaration.python and python else problems


def unmet_error(declaration: Declaration) -> LoadError | None:
    """The error that keeps an agent from loading and lists all problems; `None` when its requirements are met."""
    problems = problems_of(declaration)
    fixed = _conflicts_with_gateway(declaration)
    if problems.keys() <= fixed.keys():
        return None  # the agent may work with the versions of the gateway
    hint = f"run: {declaration.install_command}"
    if obstacles := [*(rejected.error for rejected in declaration.obstacles), *fixed.values()]:
        lines = dict.fromkeys(f"{Path(str(each.source)).name}:{each.line}" for each in obstacles)
        hint = f"fix or remove {_first(list(lines), 'line')}, then {hint}"
    if declaration.python and check_python(declaration):
        hint = f"run the gateway on Python {declaration.python.specifier}"
    return next(iter(problems.values())).error(f"requirements are not met: {'; '.join(problems)}", hint)


def notes_of(declaration: Declaration) -> list[str]:
    """Notes for operators about the parts of a declaration that do not keep the agent from loading."""
    errors = [*(rejected.error for rejected in declaration.rejected), *_conflicts_with_gateway(declaration).values()]
    shown = [str(error) for error in errors[:_MAX_NOTES]]
    return [*shown, f"and {len(errors) - _MAX_NOTES} more lines of this kind"] if errors[_MAX_NOTES:] else shown


def _conflicts_with_gateway(declaration: Declaration) -> dict[str, LoadError]:
    """The problems with versions of the gateway's own requirements, which cannot be installed in other versions."""
    own = {canonicalize_name(need.name) for need in needs_of_the_gateway()}
    hint = "remove the version if the agent works with the installed one"
    return {
        problem: location.error(f"{problem}, which the gateway requires", hint)
        for problem, location in problems_of(declaration).items()
        if ": conflicts with installed" in problem and canonicalize_name(_NAME.match(problem)[0]) in own  # type: ignore[index]
    }


def _first(items: list[str], kind: str) -> str:
    more = len(items) - _MAX_NOTES
    return ", ".join(items[:_MAX_NOTES]) + (f" and {more} more {kind}s" if more > 0 else "")


def needs_of_the_gateway() -> list[Requirement]:
    """The gateway's own requirements. It shares the environment with the agents, and none of them may break it."""
    try:
        needs = [Requirement(text) for text in distribution(GATEWAY).requires or ()]
    except PackageNotFoundError:
        return []  # it runs from a source tree
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def _problem(requirement: Requirement, followed: set[tuple[str, str]]) -> str | None:
    try:
        found = distribution(requirement.name)
        version = found.version
    except (PackageNotFoundError, ValueError, KeyError):
        version = None
    if not version:
        return "missing"
    try:
        fits = requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        fits = not requirement.specifier
    if not fits:
        return f"conflicts with installed {requirement.name} {version}"
    for need in _needs_of_extras(requirement, found, followed):
        if problem := _problem(need, followed):
            return problem if ": " in problem else f"{problem}: its extra requires {need}"
    return None


def _needs_of_extras(
    requirement: Requirement, found: Distribution, followed: set[tuple[str, str]]
) -> Iterator[Requirement]:
    """The requirements of extras; each extra of a project once, because extras may be recursive."""
    for extra in sorted(requirement.extras):
        key = (canonicalize_name(requirement.name), canonicalize_name(extra))
        if key in followed:
            continue
        followed.add(key)
        for text in found.requires or ():
            try:
                need = Requirement(text)
            except InvalidRequirement:
                continue  # an installed distribution's mistake is not the agent's
            if need.marker and need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""}):
                yield need
