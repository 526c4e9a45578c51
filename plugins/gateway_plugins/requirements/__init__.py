"""Dependencies of agents: each agent declares them in its own files, and they are checked before it is imported.

Nothing is installed while the gateway serves, unless an operator sets `auto_install`.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from gateway_core import AgentEntry, Gateway, hookimpl
from gateway_plugins.requirements.checking import check_python, notes_of, problems_of, unmet_error
from gateway_plugins.requirements.command import deps
from gateway_plugins.requirements.declarations import Declaration
from gateway_plugins.requirements.installing import InstallError, install
from gateway_plugins.requirements.parsing import read_declaration
from gateway_plugins.requirements.retry import reload_after_installation
from gateway_plugins.requirements.settings import Settings

logger = logging.getLogger(__name__)


class Requirements:
    """The plugin `requirements`.

    Args:
        gateway: The gateway.
        config: Its settings.
    """

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        self._gateway = gateway
        self._settings = config
        self._declared: dict[str, Declaration] = {}
        # A load that timed out leaves its thread behind, which may still install.
        self._installing = threading.Lock()

    def reconfigure(self, config: Settings) -> None:
        """Uses other settings for loads that begin from now on."""
        self._settings = config

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Notice installed packages while the gateway runs."""
        task = asyncio.create_task(reload_after_installation(self._gateway, lambda: self._settings.retry))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    @hookimpl
    def admit_agent(self, entry: AgentEntry) -> Iterable[str]:
        """Rejects an agent whose requirements are not met, with all problems and the command that installs them.

        Returns:
            Notes about lines that are not checked.
        """
        if not self._settings.check:
            return []
        declaration = read_declaration(entry.id, Path(entry.source), entry.folder)
        self._declared.pop(entry.id, None)
        if declaration.is_empty:
            return []
        self._declared[entry.id] = declaration
        if self._settings.auto_install:
            self._install(declaration)
        error = unmet_error(declaration)
        if error is not None:
            raise error
        return notes_of(declaration)

    @hookimpl
    def commands(self) -> Iterable[click.Command]:
        """`deps`."""
        return [deps]

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """The number of agents that declare requirements, and the requirements that are not met now."""
        declared = self._present()
        return {
            "declaring": len(declared),
            "unmet": {d.agent_id: problems for d in declared if (problems := problems_of(d))},
            "auto_install": self._settings.auto_install,
        }

    def _present(self) -> list[Declaration]:
        return [declaration for declaration in list(self._declared.values()) if declaration.file.exists()]

    def _install(self, declaration: Declaration) -> None:
        """Installs what is missing.

        Raises:
            LoadError: A line is rejected, requirements conflict, or the installation fails.
        """
        with self._installing:
            problems = problems_of(declaration)
            if not problems or check_python(declaration):
                return  # the check that follows reports the wrong Python
            if declaration.obstacles:
                raise declaration.obstacles[0].error
            others = [other for other in self._present() if other.agent_id != declaration.agent_id]
            logger.warning("installing for agent %s: %s", declaration.agent_id, "; ".join(problems))
            source = self._settings.allow_source
            try:
                install([declaration], others, allow_source=source, dry_run=False, report=logger.info)
            except InstallError as error:
                message = " ".join(line.strip() for line in error.args)
                hint = f"fix the cause, then run: {declaration.install_command}"
                raise next(iter(problems.values())).error(message, hint) from error
