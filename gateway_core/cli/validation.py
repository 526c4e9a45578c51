"""Checks the configuration as `serve` would, and collects everything that is wrong.

The check enters the plugins' lifespans and loads the agents, with a temporary state directory. It therefore changes
nothing, and can be used while the gateway runs.
"""

import asyncio
import json
import logging
import math
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TextIO

import click
from attrs import evolve, frozen

from gateway_core.cli import EXIT_CONFIG, read_config
from gateway_core.config.problems import Problems
from gateway_core.config.settings import SUSPICIOUS, Config
from gateway_core.config.sources import Table
from gateway_core.errors import ConfigError, GatewayError, LoadError, PluginError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.types import Catalog


@frozen
class Mistake:
    """One line of the result."""

    level: Literal["error", "warning", "note"]
    error: GatewayError

    def as_json(self) -> dict[str, Any]:
        """Return the mistake for programs."""
        error = self.error
        return {
            "level": self.level,
            "file": getattr(error, "file", None),
            "line": getattr(error, "line", None),
            "source": error.source,
            "message": error.message,
            "hint": error.hint,
            "code": error.code,
        }


def validate(file: Path | None, agents: Path | None, overrides: Table, skip: Collection[str] = ()) -> list[Mistake]:
    """Return everything that is wrong with the configuration and the agents.

    Args:
        file: The option `--config`.
        agents: The option `--agents`.
        overrides: Settings from other options.
        skip: Situations, such as `offline`.
    """
    problems = Problems()
    with problems.collected():
        check_start(read_config(file, agents, overrides, problems=problems), problems)
        config = read_config(file, agents, overrides, skip=skip, problems=problems)
        with tempfile.TemporaryDirectory(prefix="agent-gateway-") as folder:
            state = evolve(config.state, folder=Path(folder) if config.state.folder else None)
            catalog, reported = asyncio.run(_run(evolve(config, state=state), problems))
        return [*mistakes(config, problems.found, reported), *_of_agents(catalog, config)]
    return [Mistake("error", error) for error in problems.found]


def check_start(config: Config, problems: Problems) -> None:
    """Check all tables of plugins, the state directory and the addresses, without starting anything."""
    from gateway_core.server.listeners import check_exposure, open_listeners
    from gateway_core.storage.state_dir import check_folder

    gateway = NullGateway(config)
    before = len(problems.found)
    gateway.hooks = load_plugins(config, gateway, problems=problems).hooks
    with problems.collected():
        check_folder(config.state.folder)
    for listener in open_listeners(config.server, problems):
        listener.close()
    # A plugin that could not be loaded may be the one that controls access.
    if len(problems.found) == before:
        with problems.collected():
            check_exposure(config, gateway.hooks)


async def _run(config: Config, problems: Problems) -> tuple[Catalog, list[GatewayError]]:
    from gateway_core.gateway import RunningGateway

    reported: list[GatewayError] = []
    gateway = RunningGateway(config, {"command_line": listener(reported.append)}, problems)
    for hook in (gateway.hooks.routes, gateway.hooks.admin_routes, gateway.hooks.middleware):
        with problems.collected():
            hook()
    async with gateway:
        return gateway.catalog, reported


def listener(report: Callable[[GatewayError], None]) -> type:
    """Return the class of a plugin that passes on the errors that the gateway reports."""
    from gateway_core.hooks.specs import hookimpl

    # The results are printed, so they are not logged.
    logging.basicConfig(handlers=[logging.NullHandler()])

    class Listener:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def on_error(self, error: GatewayError) -> None:
            report(error)

    return Listener


def mistakes(config: Config, raised: Collection[GatewayError], reported: Iterable[GatewayError] = ()) -> list[Mistake]:
    """Sort the errors of settings by their severity, without duplicates and without the errors of agents."""
    from gateway_core.server.listeners import ADDRESS_IN_USE
    from gateway_core.storage.state_dir import running_server

    running = running_server(config.state.folder)
    found: dict[str, Mistake] = {}
    for error in [*raised, *reported, *config.warnings]:
        config.locate(error)
        level: Literal["error", "warning", "note"] = "error"
        if isinstance(error, LoadError):
            continue
        if error.code == ADDRESS_IN_USE and running is not None:
            level = "note"
            process = running.process or "unknown"
            error.hint = f"the gateway that runs with this state directory (process {process}) probably uses it"
        elif (
            error.code == SUSPICIOUS
            or (isinstance(error, PluginError) and error not in raised)
            or error in config.warnings
        ):
            # Such as a server that is not available.
            level = "warning"
        found.setdefault(str(error), Mistake(level, error))
    return sorted(found.values(), key=_order)


def _order(mistake: Mistake) -> tuple[int, float]:
    line = getattr(mistake.error, "line", None)
    return ("error", "warning", "note").index(mistake.level), math.inf if line is None else line


def _of_agents(catalog: Catalog, config: Config) -> Iterable[Mistake]:
    for broken in catalog.broken.values():
        error: GatewayError = broken.error
        if error.message.startswith(f'entry = "{config.agent(broken.id).entry}"'):
            error = ConfigError(error.message, source=f"[agents.{broken.id}] entry", hint=error.hint)
        elif error.source is not None and error.source.startswith("["):
            error = ConfigError(error.message, source=error.source, hint=error.hint)
        config.locate(error)
        yield Mistake("error" if isinstance(error, ConfigError) else "warning", error)
    for served in catalog.agents.values():
        for warning in served.warnings:
            yield Mistake("warning", LoadError(warning, source=served.entry.source))


def show(found: Iterable[Mistake], output: TextIO, *, as_json: bool) -> int:
    """Print the result, and return the exit status."""
    found = list(found)
    if as_json:
        click.echo(json.dumps([mistake.as_json() for mistake in found], indent=2), file=output)
    else:
        for mistake in found:
            click.echo(f"{mistake.level}: {mistake.error}", file=output)
        counts = [sum(mistake.level == level for mistake in found) for level in ("error", "warning")]
        words = [
            f"{count} {name}{'' if count == 1 else 's'}"
            for count, name in zip(counts, ("error", "warning"), strict=True)
        ]
        click.echo(f"{', '.join(words)}" if any(counts) else "the configuration is valid", file=output)
    return status_of(found)


def status_of(found: Iterable[Mistake]) -> int:
    """Return the exit status: that of an invalid configuration, or 0."""
    return EXIT_CONFIG if any(mistake.level == "error" for mistake in found) else 0
