"""Defines the command line `agent-gateway`.

Each subcommand is defined in its own module. This module collects them, and converts errors of the gateway to one line
of output and an exit status. To keep startup fast, it imports neither the SDK nor the server.
"""

import difflib
import gc
import logging
import sys
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway_core import __version__
from gateway_core.config.problems import Problems
from gateway_core.config.settings import Config, load_config
from gateway_core.config.sources import Table
from gateway_core.errors import ConfigError, GatewayError, errors_of
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
    "config": "gateway_core.cli.config",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if close := difflib.get_close_matches(args[0], self.list_commands(ctx), n=1):
                raise click.UsageError(f"{error.message} (Did you mean '{close[0]}'?)", ctx) from None
            raise

    def _of_plugins(self) -> dict[str, click.Command]:
        return hooks_of(load_config()).commands()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="agent-gateway")
@click.option("--debug", is_flag=True, help="Print the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Serve OpenAI Agents SDK modules as models to every OpenAI-compatible client."""
    context.color = color_setting()
    if debug:
        logging.getLogger("gateway_core").setLevel(logging.DEBUG)


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
    if logging.getLogger("gateway_core").level == logging.DEBUG:
        traceback.print_exception(error)
    for each in errors_of(error):
        click.echo(f"agent-gateway: {each}", err=True)
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


def listen_options(command: Any) -> Any:
    """Add the options that `serve` has for its address."""
    port = click.IntRange(0, 65535)
    command = click.option("--port", type=port, help="Port to listen on (default: 8000; 0 selects a free port).")(
        command
    )
    return click.option("--host", help="Address to listen on (default: 127.0.0.1).")(command)


def server_table(host: str | None, port: int | None) -> Table:
    """Return the settings of the options `--host` and `--port`."""
    return {"server": {name: value for name, value in (("host", host), ("port", port)) if value is not None}}


def read_config(
    file: Path | None,
    agents: Path | None,
    overrides: Table | None = None,
    *,
    skip: Collection[str] = (),
    problems: Problems | None = None,
) -> Config:
    """Load the configuration with the options of the command line. All mistakes are reported at once.

    Args:
        file: The option `--config`.
        agents: The option `--agents`. It sets the setting that a plugin's attribute `agents_setting` names.
        overrides: Settings from other options.
        skip: Situations, such as `offline`. A plugin with one of them in its attribute `skip_for` is disabled.
        problems: Collects the errors of settings instead of raising them.

    Raises:
        ConfigError: A setting is invalid, also one of a plugin.
    """
    found = Problems() if problems is None else problems
    config = load_config(file, overrides=overrides, problems=found)
    if problems is None and found.found:
        from gateway_core.hooks.null_gateway import NullGateway
        from gateway_core.hooks.plugin_loader import load_plugins

        load_plugins(config, NullGateway(config), problems=found)
        found.raise_found()
    if agents is None and not skip:
        return config
    from gateway_core.hooks.plugin_loader import enabled_classes

    tables: Table = {}
    for name, cls in enabled_classes(config):
        if not set(skip).isdisjoint(getattr(cls, "skip_for", ())):
            tables[name] = {"enabled": False}
        elif agents is not None and (setting := getattr(cls, "agents_setting", None)):
            tables[name] = {setting: str(agents.resolve())}
    return load_config(file, overrides={**(overrides or {}), "plugins": tables}, problems=Problems())
