"""Metrics of requests, runs, models, tools, decisions and failures, as Prometheus text and over OTLP.

It measures nothing by asking others at the time of a request, and no label holds what a client chose.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway_core import (
    AuthenticationError,
    ConfigError,
    DecisionMade,
    Gateway,
    GatewayError,
    ModelCall,
    Outcome,
    RunContext,
    Seconds,
    Secret,
    ToolCall,
    UnavailableError,
    described,
    hookimpl,
)
from gateway_plugins.metrics.requests import RequestMetrics

if TYPE_CHECKING:
    from gateway_plugins.metrics.export import Export
    from gateway_plugins.metrics.instruments import Instruments

PATH = "/metrics"


@frozen
class Settings:
    """`[plugins.metrics]`."""

    open: bool = False
    """Whether anybody may read `/metrics`, not only an admin."""
    listen: str = ""
    """An address of their own, such as `127.0.0.1:9464`, at which metrics can be read."""
    key: Secret | None = None
    """A scraper's own: whoever sends it may read them, at both addresses, and nobody else."""
    otlp_endpoint: str = ""
    """The base URL of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`."""
    otlp_headers: dict[str, Secret] = Factory(dict)
    """Sent to the collector."""
    otlp_interval: Seconds = Seconds(60.0)
    """Between exports to the collector."""


class Metrics:
    """The plugin `metrics`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if config.open and config.key:
            raise ConfigError("the metrics cannot be open and have a key", source="[plugins.metrics] open")
        self._gateway = gateway
        self._config = config
        self._export: Export | None = None
        self._instruments: Instruments | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Make the instruments, and let go of them."""
        # They take a tenth of a second to import; commands that serve nothing do without them.
        from gateway_plugins.metrics.export import Export, listening
        from gateway_plugins.metrics.instruments import Instruments

        config = self._config
        headers = {name: value.reveal() for name, value in config.otlp_headers.items()}
        self._export = export = Export(config.otlp_endpoint, headers, config.otlp_interval)
        self._instruments = Instruments(export.meter, self._gateway)
        self._instruments.measure(export.meter, self._gateway.measurements())
        try:
            with ExitStack() as stack:
                if config.listen:
                    stack.enter_context(listening(config.listen, export.registry, config.key))
                yield
        finally:
            self._export = self._instruments = None
            await asyncio.to_thread(export.close)

    @hookimpl
    def middleware(self) -> Iterable[Middleware]:
        """Counts requests."""
        return [Middleware(RequestMetrics, instruments=lambda: self._instruments)]

    @hookimpl
    def routes(self) -> Iterable[BaseRoute]:
        """`/metrics`, where it is open to everybody, or to whoever has its key."""
        return [Route(PATH, self._scrape)] if self._config.open or self._config.key else []

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """`/metrics`, where it is not."""
        return [] if self._config.open or self._config.key else [Route(PATH, self._scrape)]

    @described("Measurements, for Prometheus", content={"text/plain": {"type": "string"}})
    async def _scrape(self, request: Request) -> Response:
        from gateway_plugins.metrics.export import CONTENT_TYPE, is_key

        if self._config.key and not is_key(self._config.key, request.headers.get("authorization")):
            raise AuthenticationError("the metrics have a key of their own, and this is not it")
        if self._export is None:
            raise UnavailableError("the gateway is starting or stopping", retry_after=1)
        text = await asyncio.to_thread(self._export.text)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    @hookimpl
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Count it."""
        if self._instruments is not None:
            self._instruments.run(run, outcome)

    @hookimpl
    def on_model_end(self, call: ModelCall) -> None:
        """Count it, and its tokens."""
        if self._instruments is not None:
            self._instruments.model_call(call)

    @hookimpl
    def on_tool_end(self, call: ToolCall) -> None:
        """Count it."""
        if self._instruments is not None:
            self._instruments.tool_call(call)

    @hookimpl
    def on_decision(self, made: DecisionMade) -> None:
        """Count it."""
        if self._instruments is not None:
            self._instruments.decision(made)

    @hookimpl
    def on_error(self, error: GatewayError) -> None:
        """Count it."""
        if self._instruments is not None:
            self._instruments.error(error)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Where the metrics can be read."""
        config = self._config
        return {"path": PATH, "open": config.open, "listen": config.listen, "otlp_endpoint": config.otlp_endpoint}
