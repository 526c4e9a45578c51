"""What agents need installed: each says it in its own files, and is told what is missing before it is imported.

It installs nothing while the gateway serves, unless an operator switched that on.
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from gateway_core import AgentEntry, Gateway, LoadError, hookimpl
from gateway_plugins.requirements.checking import check, check_python
from gateway_plugins.requirements.command import deps_command
from gateway_plugins.requirements.declarations import Declaration
from gateway_plugins.requirements.installing import Runner, install, run
from gateway_plugins.requirements.parsing import read_declaration
from gateway_plugins.requirements.planning import make_plan

logger = logging.getLogger(__name__)


@frozen
class Settings:
    """`[plugins.requirements]`."""

    check: bool = True
    """Whether an agent is checked before it is imported."""
    auto_install: bool = False
    """Whether what is missing is then installed."""
    allow_source: bool = False
    """Whether packages may be built from source, which runs their code at installation."""


class Requirements:
    """The plugin `requirements`.

    Args:
        gateway: The gateway.
        config: Its settings.
        runner: Starts the installer; a real process unless given.
    """

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings, runner: Runner = run) -> None:
        self._settings = config
        self._runner = runner
        self._declared: dict[str, Declaration] = {}
        # A load that took too long leaves its thread behind, which may still install.
        self._installing = threading.Lock()

    def reconfigure(self, config: Settings) -> None:
        """Take other settings for loads that begin from now on."""
        self._settings = config

    @hookimpl
    def admit_agent(self, entry: AgentEntry) -> None:
        """Refuse an agent whose requirements are not met, with all that is wrong and the command that mends it."""
        if not self._settings.check:
            return
        declaration = read_declaration(entry.id, Path(entry.source), entry.folder)
        self._declared.pop(entry.id, None)
        if declaration.is_empty:
            return
        self._declared[entry.id] = declaration
        if self._settings.auto_install:
            self._install(declaration)
        error = unmet_error(declaration)
        if error is not None:
            raise error

    @hookimpl
    def commands(self) -> Iterable[click.Command]:
        """`deps`."""
        return [deps_command(self._settings, self._runner)]

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """How many agents declare something, and what of it is not met now."""
        declared = self._present()
        return {
            "declaring": len(declared),
            "unmet": {d.agent_id: problems for d in declared if (problems := _problems(d))},
            "auto_install": self._settings.auto_install,
        }

    def _present(self) -> list[Declaration]:
        return [declaration for declaration in list(self._declared.values()) if declaration.file.exists()]

    def _install(self, declaration: Declaration) -> None:
        """Install what is missing.

        Raises:
            LoadError: It is refused, is in conflict with others, or failed.
        """
        with self._installing:
            others = [other for other in self._present() if other.agent_id != declaration.agent_id]
            if not any(finding.problem for finding in check(declaration)):
                return
            if declaration.refused:
                raise declaration.refused[0].as_error()
            plan = make_plan([declaration], others, allow_source=self._settings.allow_source)
            if plan.wrong_python:
                return  # told by the check that follows
            if plan.conflicts:
                raise _error(declaration, "; ".join(map(str, plan.conflicts)), "let the files agree on a version")
            for batch in plan.batches:
                logger.warning("installing for agent %s: %s", declaration.agent_id, ", ".join(batch.requirements))
            problem = install(plan, self._runner, logger.info)
            if problem is not None:
                raise _error(declaration, problem, _command(declaration))


def unmet_error(declaration: Declaration) -> LoadError | None:
    """What keeps an agent out, as one error that names all of it; none when its requirements are met."""
    malformed = next((refusal for refusal in declaration.refused if refusal.malformed), None)
    if malformed is not None:
        return malformed.as_error()
    problems = _problems(declaration)
    if not problems:
        return None
    hint = f"run: {_command(declaration)}"
    if declaration.python is not None and check_python(declaration):
        hint = f"run the gateway on Python {declaration.python.specifier}"
    return _error(declaration, f"what it needs is not installed: {'; '.join(problems)}", hint)


def _problems(declaration: Declaration) -> list[str]:
    python = check_python(declaration)
    unmet = [f"{f.declared.requirement}: {f.problem}" for f in check(declaration) if f.problem]
    return ([python] if python else []) + unmet


def _command(declaration: Declaration) -> str:
    return f"agent-gateway deps install --agent {declaration.agent_id}"


def _error(declaration: Declaration, message: str, hint: str) -> LoadError:
    place = next((finding.declared.place for finding in check(declaration) if finding.problem), None)
    if place is None and declaration.python is not None:
        place = declaration.python.place
    return LoadError(
        message,
        source=str(place.file) if place else str(declaration.file),
        line=place.line if place else None,
        source_line=place.text if place else None,
        hint=hint,
        code="dependency",
    )
