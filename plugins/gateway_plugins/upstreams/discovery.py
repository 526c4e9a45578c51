"""Selects the upstreams: the configured ones, or else one from the environment or a local server.

It probes only loopback addresses, and starts no servers.
"""

import asyncio
import os
from collections.abc import Mapping

import httpx2
from agents.models import get_default_model
from attrs import frozen

from gateway_core import ConfigError, Secret, Url, check_url
from gateway_plugins.upstreams.settings import Upstream

PROBE_SECONDS = 0.3
OPENAI_URL = "https://api.openai.com/v1"
LOCAL_SERVERS = {"ollama": "http://127.0.0.1:11434/v1", "lmstudio": "http://127.0.0.1:1234/v1"}


@frozen
class Selection:
    """The upstreams to use, and the reason."""

    upstreams: Mapping[str, Upstream]
    reason: str


async def discover(
    configured: Mapping[str, Upstream], *, probe: bool, servers: Mapping[str, str] = LOCAL_SERVERS
) -> Selection:
    """Select the upstreams to use. The selection may be empty.

    Args:
        configured: Configured upstreams. If there are any, only they are used.
        probe: Whether to probe for local servers.
        servers: URLs of possible local servers, by name.
    """
    if configured:
        return Selection(configured, "configured in [plugins.upstreams]")
    key, url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if key or url:
        found = "OPENAI_API_KEY" if key else "OPENAI_BASE_URL"
        return Selection({"openai": _from_environment(key, url)}, f"{found} is set")
    if probe:
        for name, base_url in servers.items():
            if await _is_running(base_url):
                return Selection({name: Upstream(Url(base_url))}, f"detected at {base_url}")
    return Selection({}, "no upstream is configured, and no local server was found")


def _from_environment(key: str | None, url: str | None) -> Upstream:
    secret = Secret(key) if key else None
    if url:
        try:
            check_url(url)
        except ConfigError as error:
            raise ConfigError(error.message, source="environment variable OPENAI_BASE_URL", hint=error.hint) from None
    if url and url.rstrip("/") != OPENAI_URL:
        return Upstream(Url(url), secret, default_model=os.environ.get("OPENAI_DEFAULT_MODEL"))
    # Only OpenAI's own server is certain to support the Responses API and the SDK's default model.
    return Upstream(Url(OPENAI_URL), secret, api="responses", default_model=get_default_model())


async def _is_running(base_url: str) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS), httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{base_url}/models")).status_code < 500
    except (httpx2.HTTPError, TimeoutError, OSError):
        return False
