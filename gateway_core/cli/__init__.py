"""Defines the command line `agent-gateway`.

Each subcommand is defined in its own module. This module collects them, and converts errors of the gateway to one line
of output and an exit status. To keep startup fast, it imports neither the SDK nor the server.
"""

import gc
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway_core import __version__
from gateway_core.config.settings import Config, Table, load_config
from gateway_core.errors import ConfigError, GatewayError
from gateway_core.observability.terminal import color_setting

if TYPE_CHECKING:
    from gateway_core.hooks.dispatch import Hooks

EXIT_CONFIG = 78
"""The exit status `EX_CONFIG` of `sysexits.h`."""

COMMANDS = {
    "serve": "gateway_core.cli.serve",
    "init": "gateway_core.cli.scaffold",
    "new": "gateway_core.cli.scaffold",
    "check": "gateway_core.cli.inspect",
    "reload": "gateway_core.cli.reload",
    "agents": "gateway_core.cli.inspect",
    "plugins": "gateway_core.cli.inspect",
    "config": "gateway_core.cli.inspect",
    "chat": "gateway_core.cli.chat",
}


class _Commands(click.Group):
    """Imports the module of a command on first use. Commands of plugins are listed after the built-in ones."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        try:
            added = self._of_plugins()
        except GatewayError:
            added = {}  # `--help` works with any settings
        return [*COMMANDS, *(name for name in added if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            try:
                return self._of_plugins().get(cmd_name)
            except GatewayError:
                if ctx.resilient_parsing:  # shell completion must not print an error
                    return None
                raise
        module = __import__(COMMANDS[cmd_name], fromlist=["*"])
        command: click.Command = getattr(module, cmd_name)
        return command

    def _of_plugins(self) -> dict[str, click.Command]:
        return hooks_of(load_config()).commands()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agent-gateway")
@click.pass_context
def cli(context: click.Context) -> None:
    """Serve OpenAI Agents SDK modules as models to every OpenAI-compatible client."""
    context.color = color_setting()


def main() -> None:
    """The entry point of the console script."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except GatewayError as error:
        sys.exit(report(error))


def report(error: GatewayError) -> int:
    """Print an error, and return the exit status."""
    click.echo(f"agent-gateway: {error}", err=True)
    return EXIT_CONFIG if isinstance(error, ConfigError) else 1


def hooks_of(config: Config) -> "Hooks":
    """Load the plugins without a gateway, and return their hooks."""
    from gateway_core.hooks.null_gateway import NullGateway
    from gateway_core.hooks.plugin_loader import load_plugins

    gateway = NullGateway(config)
    gateway.hooks = load_plugins(config, gateway).hooks
    return gateway.hooks


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without garbage collection, which takes an eighth of the SDK's import time and frees no memory."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


offline_option = click.option("--offline", is_flag=True, help="Use the built-in offline model instead of an upstream.")


def config_options(command: Any) -> Any:
    """Add the options of every command that reads the configuration."""
    command = click.option(
        "--agents",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder of agents to serve (default: ./agents).",
    )(command)
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file (default: gateway.toml).",
    )(command)


def read_config(
    file: Path | None, agents: Path | None, overrides: Table | None = None, *, skip: Collection[str] = ()
) -> Config:
    """Load the configuration with the options of the command line.

    Args:
        file: The option `--config`.
        agents: The option `--agents`. It sets the setting that a plugin's attribute `agents_setting` names.
        overrides: Settings from other options.
        skip: Situations, such as `offline`. A plugin with one of them in its attribute `skip_for` is disabled.
    """
    config = load_config(file, overrides=overrides)
    if agents is None and not skip:
        return config
    from gateway_core.hooks.plugin_loader import enabled_classes

    tables: Table = {}
    for name, cls in enabled_classes(config):
        if not set(skip).isdisjoint(getattr(cls, "skip_for", ())):
            tables[name] = {"enabled": False}
        elif agents is not None and (setting := getattr(cls, "agents_setting", None)):
            tables[name] = {setting: str(agents.resolve())}
    return load_config(file, overrides={**(overrides or {}), "plugins": tables})
