"""Implements `agent-gateway reload`, which makes the running server of a configuration reload it and its agents.

The state directory names the server. Without its admin key, a user who may send the process signals can still reload.
"""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from gateway_core.config.settings import load_config
from gateway_core.net.addresses import is_unspecified
from gateway_core.storage.state_dir import RunningServer, running_server

KEY = "AGENT_GATEWAY_KEY"
# A reload loads the changed agents, each within `[catalog] load_timeout`.
_SECONDS = 600.0


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Configuration file of the gateway (default: gateway.toml).",
)
@click.option("--url", help="Base URL of the gateway, such as http://127.0.0.1:8000 (default: the running one).")
@click.option("--key", envvar=KEY, help=f"An admin key, if the gateway has keys (default: the variable {KEY}).")
def reload(file: Path | None, url: str | None, key: str | None) -> None:
    """Reload the configuration and the agents of the running gateway.

    Agents that could not be loaded are tried again, so that they find packages that were installed in the meantime. The
    exit status is 1 if an agent is broken, or no gateway is running.
    """
    config = load_config(file)
    server = running_server(config.state.folder) if url is None else RunningServer(None, url)
    found = server or RunningServer(None, None)
    host, port = config.server.admin_address or (config.server.host, config.server.port)
    base = found.url or f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        catalog = _post(base, key)
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise click.ClickException(f"{base} responds with status {error.code}: {_message(error)}") from None
        if key is not None or found.process is None or not hasattr(signal, "SIGHUP"):
            raise click.ClickException(f"{base} requires an admin key: set {KEY}, or pass --key") from None
        os.kill(found.process, signal.SIGHUP)
        click.echo(
            f"The gateway (process {found.process}) reloads; its log shows the result. For the result, set {KEY}."
        )
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(
            f"no running gateway at {base}: {reason}; start it with: agent-gateway serve"
        ) from None
    broken = [agent for agent in catalog["agents"] if agent["state"] in ("broken", "stale")]
    count = len(catalog["agents"]) - sum(agent["state"] == "broken" for agent in broken)
    click.echo(f"Reloaded: {count} agents, {len(broken)} with errors.")
    for agent in broken:
        diagnosis = agent["diagnosis"]
        line = f":{diagnosis['line']}" if diagnosis["line"] else ""
        hint = f" ({diagnosis['hint']})" if diagnosis["hint"] else ""
        click.echo(f"  {agent['id']}: {diagnosis['file']}{line}: {diagnosis['message']}{hint}", err=True)
    sys.exit(1 if broken else 0)


def _post(base: str, key: str | None) -> dict[str, Any]:
    parts = urlsplit(base)
    if parts.hostname and is_unspecified(parts.hostname):
        base = f"{parts.scheme}://{'[::1]' if ':' in parts.hostname else '127.0.0.1'}:{parts.port}"
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{base.rstrip('/')}/admin/reload", b"{}", headers, method="POST")  # noqa: S310
    # Without the proxies of the environment: the gateway is usually on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_SECONDS) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
