"""The command-line page and the parser have the same commands, arguments and options; the examples are valid."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gateway_core.cli import cli

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text()
SECTIONS = dict(re.findall(r"^## `([^`\n]+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
EXAMPLES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line
]


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """The path and the object of each command that can be called."""
    if not isinstance(command, click.Group):
        yield context.command_path, command
        return
    if command.invoke_without_command:
        yield context.command_path, command
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, click.Context(found, parent=context, info_name=name))


COMMANDS = dict(commands(cli, click.Context(cli, info_name="agent-gateway")))


def test_every_command_is_on_the_page_and_the_page_has_no_other():
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_on_the_page_and_the_page_has_no_other(path):
    written = re.findall(r"^\| `([^`]+)` \|", SECTIONS[path], re.MULTILINE)
    parameters = [
        parameter.opts[0]
        if isinstance(parameter, click.Option)
        else parameter.make_metavar(click.Context(cli)).strip("[].")
        for parameter in COMMANDS[path].params
    ]
    assert sorted(written) == sorted(parameters)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_and_a_help_text(path):
    assert any(f"{path} " in f"{example} " for example in EXAMPLES)
    assert COMMANDS[path].help
    assert all(option.help for option in COMMANDS[path].params if isinstance(option, click.Option))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_valid(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("agents/Greeter/agent.py", "agents/labs/agent.py", "my-agents/a.py", "var/backups/audit"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    words = shlex.split(example.partition("| ")[2] or example)
    if ">" in words:
        words = words[: words.index(">")]
    assert words.pop(0) == "agent-gateway"
    command: click.Command = cli
    context = click.Context(cli, info_name="agent-gateway")
    while isinstance(command, click.Group) and words and (found := command.get_command(context, words[0])):
        command, context = found, click.Context(found, parent=context, info_name=words.pop(0))
    words = [word.removeprefix("/") for word in words]
    command.make_context(context.info_name, words, parent=context.parent)
