"""Implements `init` and `new`, which create files from templates. They never overwrite existing files."""

import re
from importlib import resources
from pathlib import Path

import click

TEMPLATES = ("basic", "tools", "handoff", "guardrail", "workflow")
PLACEHOLDER = "MyAgent"
FIRST_AGENT = "Hello"


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
def init(directory: Path) -> None:
    """Create a gateway.toml and a first agent in DIRECTORY."""
    _write(directory / "gateway.toml", _read("gateway.toml"))
    _write(directory / "agents" / FIRST_AGENT / "agent.py", _template("tools", FIRST_AGENT))
    where = "" if directory == Path() else f"cd {directory} && "
    click.echo(f"Start the gateway with: {where}agent-gateway serve")


@click.command()
@click.argument("name")
@click.option(
    "--template", type=click.Choice(TEMPLATES), default="basic", show_default=True, help="Template of the agent."
)
@click.option("--agents", default="agents", type=click.Path(path_type=Path, file_okay=False), help="Folder of agents.")
def new(name: str, template: str, agents: Path) -> None:
    """Create the agent NAME from a template. NAME can contain a namespace, as in labs/Research."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", name):
        raise click.BadParameter(
            "use letters, digits, '_', '-' and '.', with '/' between namespaces", param_hint="NAME"
        )
    path = agents / name / "agent.py"
    if path.exists():
        raise click.ClickException(f"{path} already exists; choose another name")
    _write(path, _template(template, name.rpartition("/")[2]))
    click.echo(f"`agent-gateway serve` serves it as the model {name}.")


def _template(template: str, name: str) -> str:
    return _read(template, "agent.py").replace(PLACEHOLDER, name)


def _read(*path: str) -> str:
    return resources.files("gateway_core.cli").joinpath("templates", *path).read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    if path.exists():
        click.echo(f"kept   {path}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote  {path}")
