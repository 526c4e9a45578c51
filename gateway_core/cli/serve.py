"""`agent-gateway serve`: start the server, and say in a few lines what it serves and how to reach it."""

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway_core.cli import config_options, read_config
from gateway_core.config.settings import Table
from gateway_core.observability.private_formatter import PrivateFormatter

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@config_options
@click.option("--host", help="The address to listen on (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="The port to listen on (default: 8000; 0 takes any).")
@click.option("--offline", is_flag=True, help="Use the built-in offline model, whatever upstreams there are.")
def serve(file: Path | None, agents: Path | None, host: str | None, port: int | None, offline: bool) -> None:
    """Serve the agents of ./agents and of installed packages."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrivateFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Each call to an upstream would be a line.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    overrides: Table = {"server": {}, "plugins": {}}
    if host is not None:
        overrides["server"]["host"] = host
    if port is not None:
        overrides["server"]["port"] = port
    if offline:
        overrides["plugins"]["upstreams"] = {"enabled": False}
    config = read_config(file, agents, overrides)

    from gateway_core.app import build
    from gateway_core.gateway import RunningGateway
    from gateway_core.server.hypercorn import run

    app = build(config)
    gateway: RunningGateway = app.state.gateway

    def on_start(url: str) -> None:
        for line in banner(url, gateway):
            click.echo(line)
        sys.stdout.flush()

    run(app, on_start)


def banner(url: str, gateway: Any) -> Iterator[str]:
    """What an operator reads first."""
    catalog = gateway.catalog
    facts = gateway.hooks.describe()
    yield f"Agent Gateway serves at {url}/v1"
    yield f"  upstream   {_upstream(facts)}"
    if catalog.agents:
        yield f"  models     {', '.join(catalog.agents)}"
    else:
        yield "  models     none yet; make one with: agent-gateway new MyAgent"
    for broken in catalog.broken.values():
        yield f"  broken     {broken.id}: {broken.error}"
    for served in catalog.agents.values():
        for warning in served.warnings:
            yield f"  note       {served.id}: {warning}"
    yield f"  reload     {_watching(facts.get('hot_reload'))}"
    if not gateway.hooks.guarded:
        yield "  access     open to this machine, and to it only; `agent-gateway keys create NAME` makes a key"
    if gateway.admin_port is not None:
        host = gateway.config.server.admin_address[0]
        yield f"  admin      http://{host}:{gateway.admin_port}/admin/..., and only there"
    key = "a key of yours" if gateway.hooks.guarded else "any key"
    yield f"  Open WebUI Admin Settings > Connections > OpenAI API: URL {url}/v1, {key}"
    yield "Stop it with Ctrl+C."


def _watching(watcher: Mapping[str, Any] | None) -> str:
    if watcher is None or watcher["mode"] == "off":
        return "files are not watched; after a change: POST /admin/reload, or send SIGHUP"
    if watcher["mode"] == "poll":
        return f"files are looked at again and again ({watcher['reason']}); a saved one is served"
    return "files are watched; a saved one is served"


def _upstream(facts: Mapping[str, Mapping[str, Any]]) -> str:
    known = facts.get("upstreams", {})
    for name, upstream in known.get("upstreams", {}).items():
        if upstream["default"]:
            model = upstream["default_model"]
            return f"{name} ({upstream['base_url']}), model {model}; {known['reason']}"
    if "offline_model" in facts:
        reason = known.get("reason", "asked for, or no upstreams plugin")
        return f"the built-in offline model, which is no LLM; {reason}"
    return "none"
