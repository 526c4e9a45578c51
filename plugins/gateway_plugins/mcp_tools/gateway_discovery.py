"""Which servers stand behind an mcp-gateway: asks its control plane, again and again.

It connects to none of them, and changes nothing there.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx2
from attrs import frozen

from gateway_plugins.mcp_tools.connection_supervisor import pause_after
from gateway_plugins.mcp_tools.failures import reason
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.settings import McpServer
from gateway_plugins.mcp_tools.transports import http_client

logger = logging.getLogger(__name__)

# What Kubernetes lets a deployment be called, which is what an adapter becomes.
NAME = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*")
MAX_ADAPTERS = 200


@frozen
class Found:
    """What a look found."""

    adapters: Mapping[str, Mapping[str, Any]]
    """By name: what its status says, where it tells."""
    tools: tuple[str, ...]
    """The tools that are registered at the router."""


class GatewayDiscovery:
    """Looks which adapters an mcp-gateway has.

    Args:
        name: What operators call the mcp-gateway.
        settings: How to reach it.
        auth: What signs the requests.
        on_found: Told of what each look found.
    """

    def __init__(
        self, name: str, settings: McpServer, auth: httpx2.Auth | None, on_found: Callable[[Found], Awaitable[None]]
    ) -> None:
        assert settings.url is not None
        self._name = name
        self._base = settings.url.rstrip("/")
        self._settings = settings
        self._auth = auth
        self._on_found = on_found
        self.looked = asyncio.Event()
        """Set when there was an answer."""
        self.last_error: str | None = None
        self.found = Found({}, ())

    async def keep_looking(self) -> None:
        """Look, until cancelled."""
        failures = 0
        async with http_client(self._settings, self._auth, None) as client:
            while True:
                exchange = RequestTrace()
                REQUEST_TRACE.set(exchange)
                try:
                    async with asyncio.timeout(self._settings.connect_timeout):
                        self.found = await self._look(client)
                except Exception as error:
                    failures += 1
                    self.last_error = reason(error, exchange)
                    logger.warning(
                        "the mcp-gateway %s cannot be asked for its adapters: %s", self._name, self.last_error
                    )
                    await asyncio.sleep(pause_after(failures))
                    continue
                failures, self.last_error = 0, None
                await self._on_found(self.found)
                self.looked.set()
                await asyncio.sleep(self._settings.list_ttl or pause_after(failures))

    async def _look(self, client: httpx2.AsyncClient) -> Found:
        listed = await self._get(client, "/adapters")
        names = [name for name in _names(listed) if NAME.fullmatch(name)][:MAX_ADAPTERS]
        if self._settings.adapters:
            names = [name for name in names if name in self._settings.adapters]
        statuses = await asyncio.gather(*(self._status(client, name) for name in names))
        try:
            tools = tuple(_names(await self._get(client, "/tools"))) if self._settings.router else ()
        except httpx2.HTTPStatusError:  # versions without a router
            tools = ()
        return Found(dict(zip(names, statuses, strict=True)), tools)

    async def _status(self, client: httpx2.AsyncClient, name: str) -> Mapping[str, Any]:
        """Told to operators only: an adapter without a pod may have one by the next call."""
        try:
            status = await self._get(client, f"/adapters/{quote(name)}/status")
        except (httpx2.HTTPError, ValueError):
            return {}
        pairs = status.items() if isinstance(status, dict) else ()
        return {str(k): sanitize(v) if isinstance(v, str) else v for k, v in pairs if isinstance(v, str | int)}

    async def _get(self, client: httpx2.AsyncClient, path: str) -> Any:
        response = await client.get(f"{self._base}{path}", headers={"accept": "application/json"})
        response.raise_for_status()
        return response.json()


def _names(listed: Any) -> list[str]:
    return [item["name"] for item in listed if isinstance(item, dict) and isinstance(item.get("name"), str)]
