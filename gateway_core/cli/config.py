"""Implements `agent-gateway config`, which prints the effective settings or checks them."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from gateway_core.cli import config_options, listen_options, offline_option, read_config, server_table
from gateway_core.cli.isolation import in_child, take_stdout
from gateway_core.config.settings import mask_secrets


@click.command()
@config_options
@listen_options
@offline_option
@click.option("--check", is_flag=True, help="Report every mistake that `serve` would find. Exit status: 78 for errors.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(
    file: Path | None,
    agents: Path | None,
    host: str | None,
    port: int | None,
    offline: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Print the effective settings, with secrets masked."""
    overrides, skip = server_table(host, port), ["offline"] if offline else []
    if not check:
        tables = mask_secrets(read_config(file, agents, overrides, skip=skip).tables)
        click.echo(json.dumps(tables, indent=2, default=str) if as_json else "\n".join(_toml(tables)))
        return
    from gateway_core.cli.validation import show, validate

    output = take_stdout()

    def work(*, trial: bool) -> int:
        found = validate(file, agents, {**overrides, "catalog": {"trial_import": trial}} if trial else overrides, skip)
        return show(found, output, as_json=as_json)

    # If a module exits the child process, each module is imported in a separate process first.
    status = in_child(lambda: work(trial=False))
    sys.exit(work(trial=True) if status is None else status)


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
