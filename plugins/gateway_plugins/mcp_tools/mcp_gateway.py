"""Polls a microsoft/mcp-gateway for its servers, and derives the settings of each from its own settings.

It does not connect to the servers, each of which is a `server.Server` like any other, and does not modify the
mcp-gateway.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import httpx2
from attrs import evolve, frozen

from gateway_plugins.mcp_tools.connection_supervisor import backoff_after
from gateway_plugins.mcp_tools.credentials import credential
from gateway_plugins.mcp_tools.error_mapping import reason
from gateway_plugins.mcp_tools.request_trace import REQUEST_TRACE, RequestTrace
from gateway_plugins.mcp_tools.sanitize import sanitize
from gateway_plugins.mcp_tools.settings import McpServer
from gateway_plugins.mcp_tools.transports import http_client

logger = logging.getLogger(__name__)

# An adapter becomes a Kubernetes deployment, so its name is a valid deployment name.
NAME = re.compile(r"[a-z0-9]+(-+[a-z0-9]+)*")
MAX_ADAPTERS = 200


@frozen
class DiscoveryResult:
    """The result of one poll."""

    adapters: Mapping[str, Mapping[str, Any]]
    """The status of each adapter by name; empty where the status is not available."""
    tools: tuple[str, ...]
    """The tools that are registered with the tool router."""


class McpGateway:
    """One mcp-gateway.

    Args:
        name: Name of the mcp-gateway in the configuration.
        settings: Settings of the mcp-gateway.
        cached: Names of the servers in the tool cache.
    """

    def __init__(self, name: str, settings: McpServer, cached: Iterable[str]) -> None:
        assert settings.url is not None
        self.name = name
        self.settings = settings
        self.auth = credential(settings)
        self._base = settings.url.rstrip("/")
        before = [server.partition("/")[2] for server in cached if server.startswith(f"{name}/")]
        self.known = settings.adapters or before
        """The adapters that are expected before the first poll: the configured or else the cached ones."""
        self.polled = asyncio.Event()
        """Set after the first successful poll."""
        self.last_error: str | None = None
        self.result = DiscoveryResult({}, ())

    def settings_of(self, adapter: str | None) -> McpServer | None:
        """Return the settings of one server behind the mcp-gateway; `None` if the settings select none of its tools.

        Args:
            adapter: Name of the adapter; `None` for the tool router.
        """
        path = "/mcp" if adapter is None else f"/adapters/{adapter}/mcp"
        if adapter is None and not self.settings.router:
            return None
        tools = _names_of(adapter, self.settings.tools)
        if self.settings.tools and not tools:
            return None
        idempotent = _names_of(adapter, self.settings.idempotent)
        return evolve(self.settings, url=f"{self._base}{path}", tools=tools, idempotent=idempotent)

    async def poll(self, on_result: Callable[[DiscoveryResult], Awaitable[None]]) -> None:
        """Poll until cancelled.

        Args:
            on_result: Called with the result of each poll.
        """
        failures = 0
        async with http_client(self.settings, self.auth, None) as client:
            while True:
                trace = RequestTrace()
                REQUEST_TRACE.set(trace)
                try:
                    async with asyncio.timeout(self.settings.connect_timeout):
                        self.result = await self._list(client)
                except Exception as error:
                    failures += 1
                    self.last_error = reason(error, trace)
                    logger.warning("could not list the adapters of mcp-gateway %s: %s", self.name, self.last_error)
                    await asyncio.sleep(backoff_after(failures))
                    continue
                failures, self.last_error = 0, None
                await on_result(self.result)
                self.polled.set()
                await asyncio.sleep(self.settings.list_ttl or backoff_after(failures))

    async def _list(self, client: httpx2.AsyncClient) -> DiscoveryResult:
        listed = await self._get(client, "/adapters")
        names = [name for name in _names(listed) if NAME.fullmatch(name)][:MAX_ADAPTERS]
        if self.settings.adapters:
            names = [name for name in names if name in self.settings.adapters]
        statuses = await asyncio.gather(*(self._status(client, name) for name in names))
        try:
            tools = tuple(_names(await self._get(client, "/tools"))) if self.settings.router else ()
        except httpx2.HTTPStatusError:  # a version without a tool router
            tools = ()
        return DiscoveryResult(dict(zip(names, statuses, strict=True)), tools)

    async def _status(self, client: httpx2.AsyncClient, name: str) -> Mapping[str, Any]:
        """Return an adapter's status, or nothing if it is not available.

        It is only shown to operators, and does not affect calls: an adapter without a pod may have one a second later.
        """
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


def _names_of(adapter: str | None, names: Iterable[str]) -> list[str]:
    """Return the names that belong to one server, without the server's prefix."""
    if adapter is None:
        return [name for name in names if "/" not in name]
    return [name.removeprefix(f"{adapter}/") for name in names if name.startswith(f"{adapter}/")]
