"""Implements `agent-gateway serve`, which starts the server and prints a summary of the agents and URLs."""

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway_core import __version__
from gateway_core.cli import config_options, fast_imports, listen_options, offline_option, read_config, server_table
from gateway_core.config.settings import Config
from gateway_core.errors import GatewayError
from gateway_core.net.interfaces import CONTAINER_HOST, CONTAINER_OPTION, reachable_hosts
from gateway_core.observability.private_formatter import PrivateFormatter
from gateway_core.sdk import compat

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@config_options
@listen_options
@click.option("--create-key", is_flag=True, help="Create a first key and print it, unless a key is configured.")
@offline_option
def serve(
    file: Path | None, agents: Path | None, host: str | None, port: int | None, create_key: bool, offline: bool
) -> None:
    """Serve the agents in ./agents and in installed packages."""
    if sys.stderr.isatty():
        # Importing the SDK takes seconds on a slow machine.
        click.echo(f"Starting Agent Gateway {__version__} ...", err=True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrivateFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # At INFO, httpx2 logs a line for each request to an upstream.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    config = read_config(file, agents, server_table(host, port), skip=["offline"] if offline else ())
    for warning in config.warnings:
        logger.warning("%s", warning)

    with fast_imports():
        compat.check()
        from gateway_core.app import build
        from gateway_core.gateway import RunningGateway
        from gateway_core.server.hypercorn import run
        from gateway_core.server.process import exit_despite_threads

    app = build(config)
    if not app.state.gateway.hooks.guarded and (create_key or _wants_key(config)):
        click.echo(f"{app.state.gateway.hooks.create_first_key()}\n")
        app = build(config.reread())
    gateway: RunningGateway = app.state.gateway

    def on_start(url: str) -> None:
        for line in banner(url, gateway):
            click.echo(line)
        sys.stdout.flush()

    status = 1
    try:
        run(app, on_start, f"run `{_command()} --create-key`, {gateway.hooks.access_hint}")
        status = 0
    except GatewayError as error:
        config.locate(error)
        raise
    finally:
        exit_despite_threads(status)


def _wants_key(config: Config) -> bool:
    """Ask in a terminal whether to create a first key, if other hosts can reach the gateway."""
    from gateway_core.server.listeners import exposed_hosts

    exposed = exposed_hosts(config.server)
    if not exposed or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm(f"Other hosts can reach {exposed[0]}, and no key is configured. Create a first key?")


def _command() -> str:
    return shlex.join(["agent-gateway", *sys.argv[1:]])


def banner(url: str, gateway: Any) -> Iterator[str]:
    """Return the lines of the startup summary.

    A plugin adds lines with the entry `banner` of its facts. If several plugins use a label, the first one is shown.
    """
    catalog, hooks = gateway.catalog, gateway.hooks
    texts: dict[str, str] = {}
    for facts in hooks.describe().values():
        if isinstance(lines := facts.get("banner"), Mapping):
            texts |= {label: text for label, text in lines.items() if label not in texts}
    yield f"Agent Gateway listening on {url}/v1"
    port = url.rpartition(":")[2]
    others = [f"http://{host}:{port}/v1" for host in reachable_hosts(gateway.config.server.host)]
    if others:
        yield _line("addresses", ", ".join(others))
        yield _line("containers", f"http://{CONTAINER_HOST}:{port}/v1; on Linux, add {CONTAINER_OPTION}")
    yield _line("upstream", texts.pop("upstream", "none"))
    yield _line("models", ", ".join(catalog.agents) or "none; create one with: agent-gateway new MyAgent")
    for broken in catalog.broken.values():
        yield _line("broken", f"{broken.id}: {broken.error}")
    for served in catalog.agents.values():
        for warning in served.warnings:
            yield _line("note", f"{served.id}: {warning}")
    texts.setdefault(
        "reload", "files are not watched; to reload: POST /admin/reload, or send SIGHUP, or run: agent-gateway reload"
    )
    for label, text in texts.items():
        yield _line(label, text)
    if not hooks.guarded:
        yield _line("access", f"open, from this machine only; {hooks.access_hint}")
    if gateway.admin_address is not None:
        host = gateway.config.server.admin_address[0]
        yield _line("admin", f"http://{host}:{gateway.admin_address[1]}/admin/... (this address only)")
    key = "your API key" if hooks.guarded else "any key"
    shown = others[0] if others else f"{url}/v1"
    yield _line("Open WebUI", f"Admin Settings > Connections > OpenAI API: URL {shown}, {key}")
    yield "Press Ctrl+C to stop."


def _line(label: str, text: str) -> str:
    return f"  {label:<10} {text}"
