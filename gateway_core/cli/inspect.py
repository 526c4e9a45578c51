"""Implements `check`, `agents`, `plugins` and `config`, which inspect a gateway without serving it."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from gateway_core.cli import config_options, read_config, report
from gateway_core.config.settings import mask_secrets
from gateway_core.errors import GatewayError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.sdk import compat
from gateway_core.types import Catalog

# Added to the exit status of the child process, to distinguish it from an exit by an agent's module.
_CHILD_BASE = 100

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
def config(file: Path | None, agents: Path | None, as_json: bool) -> None:
    """Print the effective settings, with secrets masked."""
    tables = mask_secrets(read_config(file, agents).tables)
    click.echo(json.dumps(tables, indent=2, default=str) if as_json else "\n".join(_toml(tables)))


@click.command()
@config_options
@as_json
def agents(file: Path | None, agents: Path | None, as_json: bool) -> None:
    """List the agents, including broken ones."""
    catalog, _ = _load(file, agents)
    _print(_rows(catalog), as_json)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@config_options
@as_json
def check(paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool) -> None:
    """Load the agents in PATHS (folders or files) and report errors.

    Without PATHS, check all agents. The exit status is 1 if any agent is broken.
    """
    compat.check()
    status = _in_child(lambda: _check(paths, file, agents, as_json, trial=False))
    # A module exited the child process. Import each module in a separate process to find it, which is slower.
    sys.exit(_check(paths, file, agents, as_json, trial=True) if status is None else status)


def _check(paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool, *, trial: bool) -> int:
    """Print the table and return the exit status."""
    rows: list[dict[str, Any]] = []
    places: list[tuple[Path | None, str | None]] = [_place(path) for path in paths] or [(agents, None)]
    for folder, only in places:
        catalog, reported = _load(file, folder, installed=not paths, trial=trial)
        rows += [row for row in _rows(catalog) if only is None or row["model"] == only]
        rows += [{"model": "-", "state": "refused", "source": source, "diagnosis": text} for source, text in reported]
    _print(rows, as_json)
    return int(any(row["state"] != "ok" for row in rows))


def _in_child(work: Callable[[], int]) -> int | None:
    """Call a function in a child process and return its status, or `None` if the child exited early."""
    if not hasattr(os, "fork"):
        return None
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            status = work()
            sys.stdout.flush()
        except GatewayError as error:
            status = report(error)
        finally:
            os._exit(_CHILD_BASE + status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code - _CHILD_BASE if code >= _CHILD_BASE else None


def _place(path: Path) -> tuple[Path | None, str | None]:
    """Return the agents folder of a path, and the id of the agent at the path, or `None` if it is an agents folder."""
    path = path.resolve()
    if path.name == "agent.py":
        path = path.parent
    if path.is_file():
        return path.parent, path.stem
    return (path.parent, path.name) if (path / "agent.py").exists() else (path, None)


def _load(
    file: Path | None, folder: Path | None, *, installed: bool = True, trial: bool = False
) -> tuple[Catalog, list[tuple[str, str]]]:
    # Errors are printed in the table, so they are not logged.
    logging.basicConfig(handlers=[logging.NullHandler()])
    skip = ["check"] if installed else ["check", "paths"]
    settings = read_config(file, folder, {"catalog": {"trial_import": trial}}, skip=skip)

    from gateway_core.errors import DiscoveryError
    from gateway_core.gateway import RunningGateway
    from gateway_core.hooks.specs import hookimpl

    reported: list[tuple[str, str]] = []

    class Listener:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def on_error(self, error: GatewayError) -> None:
            # With PATHS, only some agents are loaded, so settings for other agents are not an error.
            if isinstance(error, DiscoveryError) or (installed and error.code == "no_such_agent"):
                reported.append((error.source or "-", error.message + (f" ({error.hint})" if error.hint else "")))

    async def load() -> Catalog:
        async with RunningGateway(settings, {"command_line": Listener}) as gateway:
            return gateway.catalog

    return asyncio.run(load()), reported


def _rows(catalog: Catalog) -> list[dict[str, Any]]:
    served = [
        {
            "model": agent.id,
            "state": "ok",
            "source": agent.entry.source,
            "diagnosis": "; ".join(agent.warnings) or agent.description,
        }
        for agent in catalog.agents.values()
    ]
    broken = [
        {"model": b.id, "state": "broken", "source": b.source, "diagnosis": str(b.error), "details": b.diagnosis()}
        for b in catalog.broken.values()
    ]
    return served + broken


def _print(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo("none")
        return
    columns = [column for column in rows[0] if column != "details"]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))]
    for line in [columns, *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _toml(tables: dict[str, Any], *path: str) -> Iterable[str]:
    plain = {key: value for key, value in tables.items() if not _is_table(value)}
    if path and (plain or not tables):
        yield f"[{'.'.join(_key(part) for part in path)}]"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value)}"
    if plain or (path and not tables):
        yield ""
    for key, value in tables.items():
        if _is_table(value):
            yield from _toml(value, *path, key)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and set(value) not in ({"env"}, {"file"})


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)
