"""Several plugins can add subcommands to one group; two plugins cannot define the same command."""

import click
import pytest
from click.testing import CliRunner

from gateway_core.errors import PluginError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.hooks.specs import hookimpl


def command(name, prints="ran"):
    return click.Command(name, callback=lambda: click.echo(prints))


def group(name, *commands, **given):
    return click.Group(name, commands=list(commands), **given)


def main_group(name, *commands):
    return group(
        name, *commands, callback=lambda: click.echo("main"), invoke_without_command=True, help="The main one."
    )


def plugin(commands):
    return type("Plugin", (), {"commands": hookimpl(lambda self: commands)})()


def hooks(*offered):
    return Hooks({f"p{index}": plugin(commands) for index, commands in enumerate(offered)})


def run(command, *arguments):
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result.output.split()


@pytest.mark.parametrize("main_first", [True, False])
def test_the_group_with_a_callback_gets_all_subcommands(main_first):
    offered = [[main_group("audit", command("one", "1"))], [group("audit", command("two", "2"), help="Not this.")]]
    merged = hooks(*(offered if main_first else reversed(offered))).commands()["audit"]
    assert run(merged) == ["main"]
    assert run(merged, "one") == ["main", "1"]
    assert run(merged, "two") == ["main", "2"]
    assert merged.help == "The main one."


def test_groups_without_a_callback_are_merged():
    merged = hooks([group("audit", command("one"))], [group("audit", command("two"))], [command("other")]).commands()
    assert list(merged) == ["audit", "other"]
    assert list(merged["audit"].commands) == ["one", "two"]


def test_groups_are_merged_at_every_level():
    merged = hooks(
        [group("a", group("b", command("one", "1")))], [group("a", group("b", command("two", "2")))]
    ).commands()
    assert run(merged["a"], "b", "two") == ["2"]


def test_the_groups_of_the_plugins_are_not_changed():
    mine, yours = group("audit", command("one")), group("audit", command("two"))
    both = hooks([mine], [yours])
    assert list(both.commands()["audit"].commands) == list(both.commands()["audit"].commands) == ["one", "two"]
    assert (list(mine.commands), list(yours.commands)) == (["one"], ["two"])


@pytest.mark.parametrize(
    ("mine", "yours", "name"),
    [
        (command("x"), command("x"), "x"),
        (command("x"), group("x", command("one")), "x"),
        (group("x", command("one")), command("x"), "x"),
        (main_group("x"), main_group("x"), "x"),
        (main_group("x", command("one")), group("x", command("one")), "x one"),
        (group("x", group("y", command("one"))), group("x", group("y", command("one"))), "x y one"),
    ],
)
def test_two_plugins_with_the_same_command_are_an_error(mine, yours, name):
    with pytest.raises(PluginError) as caught:
        hooks([mine], [yours]).commands()
    text = str(caught.value)
    assert f"two plugins define the command '{name}'" in text
    assert "p0" in text
    assert "p1" in text
    assert "\n" not in text
