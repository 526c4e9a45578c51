"""Implements `check`, `agents` and `plugins`, which inspect a gateway without serving it."""

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from gateway_core.cli import config_options, fast_imports, read_config
from gateway_core.cli.isolation import in_child, take_stdout
from gateway_core.cli.validation import check_start, listener, mistakes, status_of
from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config
from gateway_core.config.sources import Table
from gateway_core.errors import ConfigError, DiscoveryError, GatewayError, LoadError, PluginError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.sdk import compat
from gateway_core.types import AgentEntry, Catalog

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@config_options
@as_json
def plugins(file: Path | None, agents: Path | None, as_json: bool) -> None:
    """List the plugins in the order of calling."""
    config = read_config(file, agents)
    infos = load_plugins(config, NullGateway(config)).infos
    rows = [
        {"plugin": i.name, "state": "on" if i.enabled else "off", "source": i.source, "hooks": list(i.hooks)}
        for i in infos
    ]
    _print(rows, as_json)


@click.command()
@config_options
@as_json
def agents(file: Path | None, agents: Path | None, as_json: bool) -> None:
    """List the agents, including broken ones."""
    output = take_stdout()
    catalog, _ = _load(file, agents)
    _print(_rows(catalog), as_json, output)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@config_options
@as_json
def check(paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool) -> None:
    """Load the agents in PATHS (folders or files) and report errors.

    Without PATHS, check the configuration and all agents. The exit status is 78 if the configuration is invalid,
    otherwise 1 if any agent is broken.
    """
    with fast_imports():
        compat.check()
        import gateway_core.gateway  # noqa: F401 - before the fork, for both processes
    output = take_stdout()
    status = in_child(lambda: _check(paths, file, agents, as_json, output, trial=False))
    # A module exited the child process. Import each module in a separate process to find it, which is slower.
    sys.exit(_check(paths, file, agents, as_json, output, trial=True) if status is None else status)


def _check(
    paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool, output: TextIO, *, trial: bool
) -> int:
    """Print the table and return the exit status."""
    rows: list[dict[str, Any]] = []
    problems = Problems()
    config = read_config(file, agents, problems=None if paths else problems)
    if not paths:
        check_start(config, problems)
    places: list[tuple[Path | None, str | None]] = [_place(path) for path in paths] or [(agents, None)]
    for folder, only in places:
        catalog, reported = _load(
            file, folder, only, installed=not paths, trial=trial, problems=None if paths else problems
        )
        rows += [row for row in _rows(catalog) if _is_at(row["model"], only)]
        rows += [
            _row(error, "refused")
            # A plugin that tries again, such as to connect to a server, reports the same error again.
            for error in {str(each): each for each in reported}.values()
            if isinstance(error, DiscoveryError | PluginError)
            and (folder is None or only is None or (error.source or "").startswith(str(folder / only)))
        ]
        if not paths:
            # With PATHS, only some agents are loaded, so settings for other agents are not an error.
            problems.found += [error for error in reported if isinstance(error, ConfigError)]
    found = mistakes(config, problems.found)
    rows += [_row(mistake.error, mistake.level) for mistake in found]
    _print(rows, as_json, output)
    return status_of(found) or int(any(row["state"] in ("broken", "refused") for row in rows))


def _row(error: GatewayError, state: str) -> dict[str, Any]:
    place = error.source or "-"
    if isinstance(error, ConfigError) and error.line is not None:
        place = place.replace(f"{error.file}", f"{error.file}:{error.line}", 1)
    text = error.message + (f" ({error.hint})" if error.hint else "")
    return {"model": "-", "state": state, "serves": "", "source": place, "diagnosis": text}


def _place(path: Path) -> tuple[Path | None, str | None]:
    """Return the agents folder of a path, and the id of the agent at the path, or `None` if it is an agents folder."""
    path = path.resolve()
    if path.name == "agent.py":
        path = path.parent
    if path.is_file():
        return path.parent, path.stem
    return (path.parent, path.name) if (path / "agent.py").exists() else (path, None)


def _is_at(agent_id: str, place: str | None) -> bool:
    """Whether an agent is the one at a place of the folder, or below it."""
    return place is None or f"{agent_id}/".startswith(f"{place}/")


def _load(
    file: Path | None,
    folder: Path | None,
    only: str | None = None,
    *,
    installed: bool = True,
    trial: bool = False,
    problems: Problems | None = None,
) -> tuple[Catalog, list[GatewayError]]:
    """Load the agents, and return the catalog and the errors that were reported.

    Args:
        file: The option `--config`.
        folder: The folder of agents. Default: that of the configuration.
        only: The id of the only agent to load, or of the namespace.
        installed: Whether to load the agents of installed packages as well.
        trial: Whether to import each module in a separate process first.
        problems: Collects the errors of settings instead of raising them.
    """
    skip = ["check"] if installed else ["check", "paths"]
    overrides: Table = {"catalog": {"trial_import": trial}}
    if folder is not None and only is not None and (entry := _entry_of(read_config(file, None), folder / only)):
        overrides["agents"] = {only: {"entry": entry}}
    settings = read_config(file, folder, overrides, skip=skip, problems=problems)

    with fast_imports():
        from gateway_core.gateway import RunningGateway
    from gateway_core.hooks.specs import hookimpl

    reported: list[GatewayError] = []

    class Listener(listener(reported.append)):  # type: ignore[misc]
        @hookimpl
        def admit_agent(self, entry: AgentEntry) -> None:
            # The other agents of the folder are not imported, because they may be slow.
            if not _is_at(entry.id, only):
                raise LoadError("not checked")

    async def load() -> Catalog:
        async with RunningGateway(settings, {"command_line": Listener}, problems, serving=False) as gateway:
            return gateway.catalog

    return asyncio.run(load()), reported


def _entry_of(config: Config, place: Path) -> str | None:
    """Return the `entry` of the agent at a place, whose id ends with the same names: `labs/Account` in `labs/Account`.

    The folder of the served agents may be a parent of the one that is checked.
    """
    parts = [part.casefold() for part in place.parts]
    ids = [name for name in config.agents if parts[-name.count("/") - 1 :] == name.casefold().split("/")]
    return config.agents[max(ids, key=len)].entry if ids else None


def _rows(catalog: Catalog) -> list[dict[str, Any]]:
    served = [
        {
            "model": agent.id,
            "state": "ok",
            "serves": agent.export,
            "source": agent.entry.source,
            "diagnosis": "; ".join(agent.warnings) or agent.description,
        }
        for agent in catalog.agents.values()
    ]
    broken = [
        {
            "model": b.id,
            "state": "broken",
            "serves": "",
            "source": b.source,
            "diagnosis": str(b.error),
            "details": b.diagnosis(),
        }
        for b in catalog.broken.values()
    ]
    return served + broken


def _print(rows: Sequence[dict[str, Any]], as_json: bool, output: TextIO | None = None) -> None:
    for line in [json.dumps(rows, indent=2)] if as_json else _lines(rows):
        click.echo(line, file=output)


def _lines(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    if not rows:
        yield "none"
        return
    columns = [column for column in rows[0] if column != "details"]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    for line in [columns, *cells]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
