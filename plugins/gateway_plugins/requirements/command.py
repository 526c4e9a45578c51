"""`agent-gateway deps install`: installs what the agents of the drop-in folder declare, or says why it will not.

Nothing is started before everything is understood: one refused line or one conflict, and nothing is installed.
"""

import difflib
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import click

from gateway_core import ConfigError
from gateway_plugins.requirements.declarations import Declaration, Refusal
from gateway_plugins.requirements.installing import Runner
from gateway_plugins.requirements.installing import install as carry_out
from gateway_plugins.requirements.planning import Plan, make_plan
from gateway_plugins.requirements.scanning import scan

_TABLE = "[plugins.requirements]"


class Options(Protocol):
    """What of the plugin's settings the command needs."""

    @property
    def allow_source(self) -> bool:
        """Whether packages may be built from source."""


def deps_command(options: Options, runner: Runner) -> click.Group:
    """The group `deps`.

    Args:
        options: The plugin's settings.
        runner: Starts the installer.
    """

    @click.group()
    def deps() -> None:
        """What agents need installed."""

    @deps.command()
    @click.option("--agent", "wanted", metavar="ID", help="Only this agent (default: all of the folder).")
    @click.option("--dry-run", is_flag=True, help="Print what would be done, and install nothing.")
    @click.option(
        "--agents", type=click.Path(path_type=Path, file_okay=False), help="The drop-in folder (default: ./agents)."
    )
    @click.option("--config", "file", type=click.Path(path_type=Path, dir_okay=False), help="The gateway.toml to read.")
    def install(wanted: str | None, dry_run: bool, agents: Path | None, file: Path | None) -> None:
        """Install what the agents declare into the environment that this command runs in.

        The exit status is 1 when anything is refused, in conflict, or could not be installed.
        """
        allow_source = options.allow_source if file is None else _allow_source(file)
        found = _scan(agents or (file.parent if file else Path()) / "agents")
        chosen = _choose(found, wanted)
        _stop_at_refused([refusal for declaration in chosen for refusal in declaration.refused])
        plan = make_plan(chosen, [d for d in found if d not in chosen], allow_source=allow_source)
        for line in _states(chosen, plan):
            click.echo(line)
        _stop(f"{agent}: {problem}" for agent, problem in plan.wrong_python.items())
        _stop(map(str, plan.conflicts))
        if not plan.batches:
            click.echo("Nothing to install.")
            return
        for line in _commands(plan):
            click.echo(line)
        if not dry_run:
            _install(chosen, plan, runner, allow_source)

    return deps


def _install(chosen: Sequence[Declaration], plan: Plan, runner: Runner, allow_source: bool) -> None:
    problem = carry_out(plan, runner, click.echo)
    _stop([problem] if problem else [])
    after = make_plan(chosen, [], allow_source=allow_source)
    _stop(f"{agent}: {f.declared.requirement}: {f.state}" for agent, found in after.unmet.items() for f in found)
    click.echo("Installed. A running gateway finds it at the next reload; after a change of version, restart it.")


def _allow_source(file: Path) -> bool:
    """The setting as a `gateway.toml` that is named on the command line has it; the default where it is silent."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(file)) from error
    except ValueError as error:
        raise ConfigError(f"is no valid TOML: {error}", source=str(file)) from error
    table = tables
    for key in ("plugins", "requirements"):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise ConfigError("must be a table", source=f"{file}: {_TABLE}")
    value = table.get("allow_source", False)
    if not isinstance(value, bool):
        raise ConfigError(f"must be true or false, and is {value!r}", source=f"{file}: {_TABLE} allow_source")
    return value


def _scan(root: Path) -> list[Declaration]:
    if not root.is_dir():
        raise click.ClickException(f"there is no folder {root}; name the drop-in folder by --agents")
    try:
        return scan(root)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: cannot be read: {error.strerror}") from error


def _choose(found: list[Declaration], wanted: str | None) -> list[Declaration]:
    if wanted is None:
        return [declaration for declaration in found if not declaration.is_empty]
    folded = wanted.casefold()
    chosen = [d for d in found if folded in (d.agent_id.casefold(), *_default_name(d))]
    if not chosen:
        close = difflib.get_close_matches(wanted, [d.agent_id for d in found], n=1)
        raise click.ClickException(f"there is no agent '{wanted}'" + (f"; did you mean '{close[0]}'?" if close else ""))
    return chosen


def _default_name(declaration: Declaration) -> list[str]:
    return [] if "/" in declaration.agent_id else [f"default/{declaration.agent_id.casefold()}"]


def _states(chosen: Sequence[Declaration], plan: Plan) -> Iterator[str]:
    if not any(plan.findings.values()):
        yield "No requirements are declared."
    for declaration in chosen:
        findings = plan.findings[declaration.agent_id]
        if findings:
            yield f"{declaration.agent_id} ({declaration.file})"
        width = max((len(str(finding.declared.requirement)) for finding in findings), default=0)
        for finding in findings:
            yield f"  {str(finding.declared.requirement).ljust(width)}  {finding.state}"


def _commands(plan: Plan) -> Iterator[str]:
    for batch in plan.batches:
        yield f"$ {shlex.join(batch.command)}"
        yield "  with requirements.txt:"
        yield from (f"    {line}" for line in batch.requirements)
        if batch.constraints:
            yield f"  and constraints.txt: {len(batch.constraints)} lines, what the gateway and all agents rely on"


def _stop_at_refused(refused: Sequence[Refusal]) -> None:
    _stop(
        line
        for refusal in refused
        for line in (f"{refusal.place}: {refusal.reason} ({refusal.hint})", f"    {_shown(refusal.place.text)}")
    )


def _shown(text: str) -> str:
    # A line that is refused may try to steer the terminal that it is shown on.
    return "".join(c if c.isprintable() else "�" for c in text[:200])


def _stop(problems: Iterator[str] | Sequence[str]) -> None:
    """End the command with status 1, if there are any problems."""
    lines = list(problems)
    for line in lines:
        click.echo(line, err=True)
    if lines:
        click.echo("Nothing more was done.", err=True)
        sys.exit(1)
