"""Implements `agent-gateway serve`, which starts the server and prints a summary of the agents and URLs."""

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway_core.cli import config_options, read_config
from gateway_core.config.settings import Table
from gateway_core.observability.private_formatter import PrivateFormatter
from gateway_core.sdk import compat

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@click.command()
@config_options
@click.option("--host", help="Address to listen on (default: 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: 8000; 0 selects a free port).")
@click.option("--offline", is_flag=True, help="Use the built-in offline model instead of an upstream.")
def serve(file: Path | None, agents: Path | None, host: str | None, port: int | None, offline: bool) -> None:
    """Serve the agents in ./agents and in installed packages."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrivateFormatter(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # At INFO, httpx2 logs a line for each request to an upstream.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    overrides: Table = {"server": {}, "plugins": {}}
    if host is not None:
        overrides["server"]["host"] = host
    if port is not None:
        overrides["server"]["port"] = port
    if offline:
        overrides["plugins"]["upstreams"] = {"enabled": False}
    config = read_config(file, agents, overrides)

    compat.check()
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
    """Return the lines of the startup summary."""
    catalog = gateway.catalog
    facts = gateway.hooks.describe()
    yield f"Agent Gateway listening on {url}/v1"
    yield f"  upstream   {_upstream(facts)}"
    if catalog.agents:
        yield f"  models     {', '.join(catalog.agents)}"
    else:
        yield "  models     none; create one with: agent-gateway new MyAgent"
    for broken in catalog.broken.values():
        yield f"  broken     {broken.id}: {broken.error}"
    for served in catalog.agents.values():
        for warning in served.warnings:
            yield f"  note       {served.id}: {warning}"
    yield f"  reload     {_watching(facts.get('hot_reload'))}"
    if not gateway.hooks.guarded:
        yield "  access     open, from this machine only; create a key with `agent-gateway keys create NAME`"
    if gateway.admin_port is not None:
        host = gateway.config.server.admin_address[0]
        yield f"  admin      http://{host}:{gateway.admin_port}/admin/... (this address only)"
    key = "your API key" if gateway.hooks.guarded else "any key"
    yield f"  Open WebUI Admin Settings > Connections > OpenAI API: URL {url}/v1, {key}"
    yield "Press Ctrl+C to stop."


def _watching(watcher: Mapping[str, Any] | None) -> str:
    if watcher is None or watcher["mode"] == "off":
        return "files are not watched; to reload: POST /admin/reload, or send SIGHUP"
    if watcher["mode"] == "poll":
        return f"polling for changes ({watcher['reason']}); edits reload automatically"
    return "watching for changes; edits reload automatically"


def _upstream(facts: Mapping[str, Mapping[str, Any]]) -> str:
    known = facts.get("upstreams", {})
    for name, upstream in known.get("upstreams", {}).items():
        if upstream["default"]:
            model = upstream["default_model"]
            return f"{name} ({upstream['base_url']}), model {model}; {known['reason']}"
    if "offline_model" in facts:
        reason = known.get("reason", "--offline was given, or the upstreams plugin is disabled")
        return f"the built-in offline model, not an LLM; {reason}"
    return "none"
