"""With no upstream configured, which one is there?

Looks at the environment, then for the two common local servers on this machine. It never leaves loopback by itself,
and starts nothing.
"""

import asyncio
import os
from collections.abc import Mapping

import httpx2
from agents.models import get_default_model
from attrs import frozen

from gateway_core import Secret
from gateway_plugins.upstreams.settings import Upstream

PROBE_SECONDS = 0.3
OPENAI_URL = "https://api.openai.com/v1"
LOCAL_SERVERS = {"ollama": "http://127.0.0.1:11434/v1", "lmstudio": "http://127.0.0.1:1234/v1"}


@frozen
class Choice:
    """The upstreams to use, and why these."""

    upstreams: Mapping[str, Upstream]
    reason: str


async def discover(
    configured: Mapping[str, Upstream], *, probe: bool, servers: Mapping[str, str] = LOCAL_SERVERS
) -> Choice:
    """The upstreams to use; none when there are none, and then another plugin may answer.

    Args:
        configured: Those of the configuration; with any, nothing else is looked for.
        probe: Whether to look for local servers.
        servers: Where local servers may be, by name.
    """
    if configured:
        return Choice(configured, "configured in [plugins.upstreams]")
    key, url = os.environ.get("OPENAI_API_KEY"), os.environ.get("OPENAI_BASE_URL")
    if key or url:
        found = "OPENAI_API_KEY" if key else "OPENAI_BASE_URL"
        return Choice({"openai": _from_environment(key, url)}, f"{found} is set")
    if probe:
        for name, base_url in servers.items():
            if await _answers(base_url):
                return Choice({name: Upstream(base_url)}, f"found running at {base_url}")
    return Choice({}, "no upstream is configured, and none was found on this machine")


def _from_environment(key: str | None, url: str | None) -> Upstream:
    secret = Secret(key) if key else None
    if url and url.rstrip("/") != OPENAI_URL:
        return Upstream(url, secret, default_model=os.environ.get("OPENAI_DEFAULT_MODEL"))
    # Only OpenAI's own server is sure to have the newer API, and the SDK's own default model.
    return Upstream(OPENAI_URL, secret, api="responses", default_model=get_default_model())


async def _answers(base_url: str) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS), httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{base_url}/models")).status_code < 500
    except (httpx2.HTTPError, TimeoutError, OSError):
        return False
