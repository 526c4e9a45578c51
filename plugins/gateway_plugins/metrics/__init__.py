"""Metrics of requests, runs, models, tools, decisions and failures, as Prometheus text and over OTLP.

Recording does not call other services, and label values are never chosen by clients.
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
    Address,
    AuthenticationError,
    ConfigError,
    DecisionMade,
    Gateway,
    GatewayError,
    ModelCall,
    Outcome,
    RunContext,
    Secret,
    Timeout,
    ToolCall,
    UnavailableError,
    check_url,
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
    """Whether `/metrics` is public; otherwise it requires an admin."""
    listen: Address = Address("")
    """A separate address that serves the metrics, such as `127.0.0.1:9464`."""
    key: Secret | None = None
    """A bearer key for scrapers. If set, both addresses require it."""
    otlp_endpoint: str = ""
    """Base URL of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`."""
    otlp_headers: dict[str, Secret] = Factory(dict)
    """HTTP headers for the collector."""
    otlp_interval: Timeout = Timeout(60.0)
    """Interval between exports to the collector."""

    def __attrs_post_init__(self) -> None:
        if self.otlp_endpoint:
            try:
                check_url(self.otlp_endpoint)
            except ConfigError as error:
                error.source = "otlp_endpoint"
                raise


class Metrics:
    """The plugin `metrics`."""

    Config = Settings
    skip_for = ("check", "chat")

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if config.open and config.key:
            raise ConfigError(
                "`open` and `key` are mutually exclusive", source="[plugins.metrics] open", hint="remove one of them"
            )
        self._gateway = gateway
        self._config = config
        self._export: Export | None = None
        self._instruments: Instruments | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Creates the instruments and exporters, and closes them on shutdown."""
        # Imported here because the import takes 0.1 s, which commands that do not serve should not pay.
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
        """Adds the middleware that measures requests."""
        return [Middleware(RequestMetrics, instruments=lambda: self._instruments)]

    @hookimpl
    def routes(self) -> Iterable[BaseRoute]:
        """Adds `/metrics` if it is public or has its own key."""
        return [Route(PATH, self._scrape)] if self._config.open or self._config.key else []

    @hookimpl
    def admin_routes(self) -> Iterable[BaseRoute]:
        """Adds `/metrics` as an admin route otherwise."""
        return [] if self._config.open or self._config.key else [Route(PATH, self._scrape)]

    @described("Get all metrics in the Prometheus text format", content={"text/plain": {"type": "string"}})
    async def _scrape(self, request: Request) -> Response:
        from gateway_plugins.metrics.export import CONTENT_TYPE, is_key

        if self._config.key and not is_key(self._config.key, request.headers.get("authorization")):
            raise AuthenticationError("missing or invalid metrics key")
        if self._export is None:
            raise UnavailableError("the gateway is starting up or shutting down", retry_after=1)
        text = await asyncio.to_thread(self._export.text)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    @hookimpl
    def on_run_end(self, run: RunContext, outcome: Outcome) -> None:
        """Records a run."""
        if self._instruments is not None:
            self._instruments.run(run, outcome)

    @hookimpl
    def on_model_end(self, call: ModelCall) -> None:
        """Records a model call and its tokens."""
        if self._instruments is not None:
            self._instruments.model_call(call)

    @hookimpl
    def on_tool_end(self, call: ToolCall) -> None:
        """Records a tool call."""
        if self._instruments is not None:
            self._instruments.tool_call(call)

    @hookimpl
    def on_decision(self, made: DecisionMade) -> None:
        """Records a policy decision."""
        if self._instruments is not None:
            self._instruments.decision(made)

    @hookimpl
    def on_error(self, error: GatewayError) -> None:
        """Records an error."""
        if self._instruments is not None:
            self._instruments.error(error)

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports where the metrics are served and exported."""
        config = self._config
        return {"path": PATH, "open": config.open, "listen": config.listen, "otlp_endpoint": config.otlp_endpoint}
