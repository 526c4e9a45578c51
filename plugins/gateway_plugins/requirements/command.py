"""`agent-gateway deps install`: installs the requirements that agents declare, or reports why it cannot."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from gateway_core import did_you_mean, find_agents, load_config
from gateway_plugins.requirements.checking import check, check_python, problems_of
from gateway_plugins.requirements.declarations import Declaration, Rejected
from gateway_plugins.requirements.installing import InstallError
from gateway_plugins.requirements.installing import install as install_with_uv
from gateway_plugins.requirements.parsing import read_declaration
from gateway_plugins.requirements.settings import Settings


@click.group()
def deps() -> None:
    """Manage the dependencies of agents."""


def _agent_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the agents of the folder for shell completion."""
    folder = context.params.get("agents") or Path("agents")
    found = find_agents(folder, lambda _: None) if folder.is_dir() else []
    return [agent.id for agent in found if agent.id.casefold().startswith(incomplete.casefold())]


@deps.command()
@click.option(
    "--agent",
    "wanted",
    metavar="ID",
    shell_complete=_agent_ids,
    help="Only this agent (default: all of the folder).",
)
@click.option("--dry-run", is_flag=True, help="Show the plan without installing.")
@click.option(
    "--agents", type=click.Path(path_type=Path, file_okay=False), help="Folder of agents (default: ./agents)."
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file (default: gateway.toml).",
)
def install(wanted: str | None, dry_run: bool, agents: Path | None, file: Path | None) -> None:
    """Install the agents' requirements into the current environment.

    The exit status is 1 when a line is rejected, requirements conflict, or the installation fails.
    """
    config = load_config(file)
    table = {key: value for key, value in config.plugins.get("requirements", {}).items() if key != "enabled"}
    settings = config.structure(table, Settings, "plugins", "requirements")
    folder = agents or (file.parent if file else Path()) / "agents"
    if not folder.is_dir():
        raise click.ClickException(f"{folder}: folder not found (name the drop-in folder with --agents)")
    found = [
        read_declaration(agent.id, agent.file, agent.folder)
        for agent in find_agents(folder, lambda error: click.echo(f"ignored: {error}", err=True))
    ]
    chosen = _choose(found, wanted)
    _stop(line for declaration in chosen for rejected in declaration.obstacles for line in _lines(rejected))
    if not any(declaration.requirements for declaration in chosen):
        click.echo("No requirements are declared.")
    for declaration in chosen:
        click.echo(f"{declaration.agent_id} ({declaration.file})")
        for declared, state in check(declaration):
            click.echo(f"  {declared.requirement!s:40}  {state}")
    _stop(f"{declaration.agent_id}: {problem}" for declaration in chosen if (problem := check_python(declaration)))
    if not any(map(problems_of, chosen)):
        click.echo("Nothing to install.")
        return
    others = [declaration for declaration in found if declaration not in chosen]
    try:
        install_with_uv(chosen, others, allow_source=settings.allow_source, dry_run=dry_run, report=click.echo)
    except InstallError as error:
        _stop(error.args)
    if not dry_run:
        _stop(f"{declaration.agent_id}: {problem}" for declaration in chosen for problem in problems_of(declaration))
        click.echo("Installed. A running gateway tries the agents again; to do so at once, run: agent-gateway reload")
        click.echo("After a change of version, restart it.")


def _choose(found: list[Declaration], wanted: str | None) -> list[Declaration]:
    if wanted is None:
        return [declaration for declaration in found if not declaration.is_empty]
    # The namespace of an agent at the top level is `default`.
    chosen = [d for d in found if wanted.casefold() in (d.agent_id.casefold(), f"default/{d.agent_id}".casefold())]
    if not chosen:
        raise click.ClickException(f"no agent '{wanted}'; {did_you_mean(wanted, [d.agent_id for d in found])}")
    return chosen


def _lines(rejected: Rejected) -> Iterator[str]:
    error = rejected.error
    summary = f"{error.source}:{error.line}: {error.message} ({error.hint})"
    for line in summary, f"    {(error.source_line or '')[:200]}":
        # A rejected line may contain control characters for the terminal.
        yield "".join(c if c.isprintable() else "�" for c in line)


def _stop(problems: Iterable[str]) -> None:
    """Ends the command with status 1 if there are problems."""
    lines = list(problems)
    for line in lines:
        click.echo(line, err=True)
    if lines:
        click.echo("Stopped; no further changes were made.", err=True)
        sys.exit(1)
