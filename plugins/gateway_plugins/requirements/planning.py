"""What would be installed for which agents, by which commands: a plan to show or to carry out.

It runs nothing and writes nothing.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

from gateway_core import LoadError
from gateway_plugins.requirements.checking import Finding, check, check_python
from gateway_plugins.requirements.conflicts import Claim, Conflict, claims_of, claims_of_the_gateway, find_conflicts
from gateway_plugins.requirements.declarations import Declaration, Declared

REQUIREMENTS = "requirements.txt"
CONSTRAINTS = "constraints.txt"


@frozen
class Batch:
    """One call of the installer."""

    requirements: tuple[str, ...]
    """Lines of a requirements file."""
    constraints: tuple[str, ...]
    """Lines of a constraints file."""
    command: tuple[str, ...]
    """Its file arguments are relative to a folder that holds both files."""


@frozen
class Plan:
    """What each agent needs, and how it would get there."""

    findings: dict[str, list[Finding]]
    """By agent."""
    conflicts: list[Conflict]
    batches: list[Batch]
    """Empty when nothing is unmet."""
    wrong_python: dict[str, str]
    """What is wrong with the Python that runs, by agent. No installation mends that."""

    @property
    def unmet(self) -> dict[str, list[Finding]]:
        """What is missing or conflicts, by agent; agents that have all they need are left out."""
        unmet = {agent: [f for f in found if f.problem] for agent, found in self.findings.items()}
        return {agent: found for agent, found in unmet.items() if found}


def make_plan(
    chosen: Sequence[Declaration],
    others: Sequence[Declaration],
    *,
    allow_source: bool,
    installer: Callable[[], tuple[str, ...]] | None = None,
) -> Plan:
    """Plan what to install for some agents.

    Args:
        chosen: The agents to install for.
        others: Further agents of the same environment: nothing is taken away from them.
        allow_source: Whether packages may be built from source, which runs their code.
        installer: The beginning of the command; that of uv or pip unless given.

    Raises:
        LoadError: Something is to be installed, and there is neither uv nor pip.
    """
    own = [claim for declaration in chosen for claim in claims_of(declaration)]
    foreign = [*(claim for declaration in others for claim in claims_of(declaration)), *claims_of_the_gateway()]
    findings = {declaration.agent_id: check(declaration) for declaration in chosen}
    python = {declaration.agent_id: check_python(declaration) for declaration in chosen}
    wrong_python = {agent: problem for agent, problem in python.items() if problem}
    plan = Plan(findings, find_conflicts(own, foreign), [], wrong_python)
    needing = [declaration for declaration in chosen if declaration.agent_id in plan.unmet]
    if needing:
        start = (installer or find_installer)()
        limits = _constraint_lines([*own, *foreign])
        for declarations in ([d for d in needing if d.hashed], [d for d in needing if not d.hashed]):
            if declarations:
                plan.batches.append(_batch(declarations, limits, start, allow_source))
    return plan


def find_installer() -> tuple[str, ...]:
    """The beginning of the command that installs into the environment that runs: uv's where there is one, else pip's.

    Raises:
        LoadError: There is neither.
    """
    python = sys.executable
    uv = shutil.which("uv", path=str(Path(python).parent)) or shutil.which("uv")
    if uv is not None:
        return (uv, "pip", "install", "--python", python)
    if find_spec("pip") is None:
        raise LoadError(f"there is neither uv nor pip for {python}", hint="install uv", code="dependency")
    return (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input")


def _batch(declarations: list[Declaration], limits: tuple[str, ...], start: tuple[str, ...], source: bool) -> Batch:
    # All requirements of an agent take part, also those that are met: none may be lost while another one is mended.
    lines = sorted({_line(declared) for d in declarations for declared in d.requirements if declared.applies})
    command = [*start]
    if not source:
        command += ["--only-binary", ":all:"]
    command += ["-r", REQUIREMENTS]
    if declarations[0].hashed:
        command += ["--require-hashes"]
        # Every package is pinned then, and the pins were compared with all limits; uv takes no ranges beside them.
        limits = ()
    if limits:
        command += ["-c", CONSTRAINTS]
    return Batch(tuple(lines), limits, tuple(command))


def _line(declared: Declared) -> str:
    # Written anew from what was understood, never copied: a line means to the installer what it meant to the check.
    return " ".join([str(declared.requirement), *(f"--hash={value}" for value in declared.hashes)])


def _constraint_lines(claims: Sequence[Claim]) -> tuple[str, ...]:
    return tuple(sorted({f"{claim.project}{claim.specifier}" for claim in claims}))
