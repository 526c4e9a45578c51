"""Implements `check`, `agents`, `plugins` and `config`, which inspect a gateway without serving it."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from gateway_core.cli import config_options, fast_imports, read_config, report
from gateway_core.config.settings import Config, Table, mask_secrets
from gateway_core.errors import DiscoveryError, GatewayError, LoadError, PluginError
from gateway_core.hooks.null_gateway import NullGateway
from gateway_core.hooks.plugin_loader import load_plugins
from gateway_core.sdk import compat
from gateway_core.types import AgentEntry, Catalog

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
    output = _take_stdout()
    catalog, _ = _load(file, agents)
    _print(_rows(catalog), as_json, output)


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@config_options
@as_json
def check(paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool) -> None:
    """Load the agents in PATHS (folders or files) and report errors.

    Without PATHS, check all agents. The exit status is 1 if any agent is broken.
    """
    with fast_imports():
        compat.check()
        import gateway_core.gateway  # noqa: F401 - before the fork, for both processes
    output = _take_stdout()
    status = _in_child(lambda: _check(paths, file, agents, as_json, output, trial=False))
    # A module exited the child process. Import each module in a separate process to find it, which is slower.
    sys.exit(_check(paths, file, agents, as_json, output, trial=True) if status is None else status)


def _check(
    paths: Sequence[Path], file: Path | None, agents: Path | None, as_json: bool, output: TextIO, *, trial: bool
) -> int:
    """Print the table and return the exit status."""
    rows: list[dict[str, Any]] = []
    places: list[tuple[Path | None, str | None]] = [_place(path) for path in paths] or [(agents, None)]
    for folder, only in places:
        catalog, reported = _load(file, folder, only, installed=not paths, trial=trial)
        rows += [row for row in _rows(catalog) if _is_at(row["model"], only)]
        rows += [
            {"model": "-", "state": "refused", "serves": "", "source": source, "diagnosis": text}
            for source, text in reported
            if folder is None or only is None or source.startswith(str(folder / only))
        ]
    _print(rows, as_json, output)
    return int(any(row["state"] != "ok" for row in rows))


def _take_stdout() -> TextIO:
    """Return the standard output, and send to standard error what the agents' modules print, also when they exit.

    Their libraries and processes may write to the descriptor itself, so the descriptor is redirected.
    """
    output = sys.stdout
    try:
        descriptor = output.fileno()
    except (OSError, ValueError):  # replaced by a stream without a descriptor
        sys.stdout = sys.stderr
        return output
    output.flush()
    taken = open(os.dup(descriptor), "w", encoding=output.encoding, errors=output.errors)  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), descriptor)
    return taken


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


def _is_at(agent_id: str, place: str | None) -> bool:
    """Whether an agent is the one at a place of the folder, or below it."""
    return place is None or f"{agent_id}/".startswith(f"{place}/")


def _load(
    file: Path | None, folder: Path | None, only: str | None = None, *, installed: bool = True, trial: bool = False
) -> tuple[Catalog, list[tuple[str, str]]]:
    # Errors are printed in the table, so they are not logged.
    logging.basicConfig(handlers=[logging.NullHandler()])
    skip = ["check"] if installed else ["check", "paths"]
    overrides: Table = {"catalog": {"trial_import": trial}}
    if folder is not None and only is not None and (entry := _entry_of(read_config(file, None), folder / only)):
        overrides["agents"] = {only: {"entry": entry}}
    settings = read_config(file, folder, overrides, skip=skip)

    with fast_imports():
        from gateway_core.gateway import RunningGateway
    from gateway_core.hooks.specs import hookimpl

    reported: list[tuple[str, str]] = []

    class Listener:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def on_error(self, error: GatewayError) -> None:
            # With PATHS, only some agents are loaded, so settings for other agents are not an error.
            # A plugin reports tools and servers that are not available.
            loading = isinstance(error, DiscoveryError | PluginError)
            if loading or (installed and error.code == "no_such_agent"):
                reported.append((error.source or "-", error.message + (f" ({error.hint})" if error.hint else "")))

        @hookimpl
        def admit_agent(self, entry: AgentEntry) -> None:
            # The other agents of the folder are not imported, because they may be slow.
            if not _is_at(entry.id, only):
                raise LoadError("not checked")

    async def load() -> Catalog:
        async with RunningGateway(settings, {"command_line": Listener}, serving=False) as gateway:
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
