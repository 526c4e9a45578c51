"""`init` and `new`: files to start from. They never overwrite one that is there."""

import re
from importlib import resources
from pathlib import Path

import click

TEMPLATES = ("basic", "tools", "handoff", "guardrail", "workflow")
PLACEHOLDER = "MyAgent"
FIRST_AGENT = "Hello"
STARTER = """\
# Settings of this gateway. Everything has a default, so this file may stay empty or be deleted;
# `agent-gateway config` prints all settings, and docs/reference/config.md explains them.

# [server]
# host = "127.0.0.1"
# port = 8000

# Where the models come from. Without any, OPENAI_API_KEY is used, else a running Ollama or LM Studio,
# else the built-in offline model.
# [plugins.upstreams.ollama]
# base_url = "http://127.0.0.1:11434/v1"
# default_model = "llama3.2"
"""


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
def init(directory: Path) -> None:
    """Make DIRECTORY a place to serve from: a gateway.toml to edit, and a first agent."""
    _write(directory / "gateway.toml", STARTER)
    _write(directory / "agents" / FIRST_AGENT / "agent.py", _template("tools", FIRST_AGENT))
    where = "" if directory == Path() else f"cd {directory} && "
    click.echo(f"Start it with: {where}agent-gateway serve")


@click.command()
@click.argument("name")
@click.option(
    "--template", type=click.Choice(TEMPLATES), default="basic", show_default=True, help="What to start from."
)
@click.option(
    "--agents", default="agents", type=click.Path(path_type=Path, file_okay=False), help="The drop-in folder."
)
def new(name: str, template: str, agents: Path) -> None:
    """Write a new agent, NAME, into the drop-in folder. NAME may have a namespace: labs/Research."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*", name):
        raise click.BadParameter(
            "use letters, digits, '_', '-' and '.', with '/' between namespaces", param_hint="NAME"
        )
    path = agents / name / "agent.py"
    if path.exists():
        raise click.ClickException(f"{path} is there already; choose another name")
    _write(path, _template(template, name.rpartition("/")[2]))
    click.echo(f"It is the model {name} of `agent-gateway serve`.")


def _template(template: str, name: str) -> str:
    source = resources.files("gateway_core.cli").joinpath("templates", template, "agent.py").read_text(encoding="utf-8")
    return source.replace(PLACEHOLDER, name)


def _write(path: Path, text: str) -> None:
    if path.exists():
        click.echo(f"kept   {path}")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote  {path}")
