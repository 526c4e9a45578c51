"""Traces of requests, runs, model calls, tools, handoffs and guardrails, as OpenTelemetry spans.

Tracing is off by default. Spans do not contain prompts, answers or arguments unless `content` is set.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, frozen
from starlette.middleware import Middleware

from gateway_core import ConfigError, Gateway, Secret, Url, hookimpl
from gateway_plugins.tracing.requests import RequestSpans

if TYPE_CHECKING:
    from agents.tracing import TracingProcessor

    from gateway_plugins.tracing.spans import Spans

logger = logging.getLogger(__name__)

EXPORT_SECONDS = 2.0


@frozen
class Settings:
    """`[plugins.tracing]`."""

    exporter: Literal["none", "otlp", "console"] = "none"
    """Destination of the spans; `none` disables tracing."""
    otlp_endpoint: Url = Url("http://127.0.0.1:4318")
    """Base URL of an OTLP/HTTP collector."""
    otlp_headers: dict[str, Secret] = Factory(dict)
    """HTTP headers for the collector."""
    sample_ratio: float = 1.0
    """Fraction of the traces started by the gateway; for a client's trace, the client's sampling decision applies."""
    content: bool = False
    """Whether spans contain prompts, answers, tool arguments and results."""


class Tracing:
    """The plugin `tracing`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if not 0 <= config.sample_ratio <= 1:
            raise ConfigError(
                "must be between 0 and 1",
                source="[plugins.tracing] sample_ratio",
                hint="0.1 samples a tenth of the traces",
            )
        self._config = config
        self._spans: Spans | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Starts the exporter, and flushes it on shutdown."""
        config = self._config
        if config.exporter == "none":
            yield
            return
        from gateway_plugins.tracing.export import provider
        from gateway_plugins.tracing.spans import Spans

        if config.content:
            logger.warning(
                "[plugins.tracing] content = true: exported spans contain prompts, answers and tool arguments"
            )
        headers = {name: value.reveal() for name, value in config.otlp_headers.items()}
        traces = provider(config.exporter, config.otlp_endpoint, headers, config.sample_ratio, EXPORT_SECONDS)
        self._spans = Spans(traces.get_tracer("agent_gateway"), content=config.content)
        try:
            yield
        finally:
            self._spans = None
            await asyncio.to_thread(traces.shutdown)

    @hookimpl
    def middleware(self) -> Iterable[Middleware]:
        """Adds the middleware that creates a span for each request."""
        return [Middleware(RequestSpans, spans=lambda: self._spans)] if self._config.exporter != "none" else []

    @hookimpl
    def trace_processors(self) -> "Iterable[TracingProcessor]":
        """Registers the processor that converts traces of the Agents SDK to spans."""
        return [self._spans] if self._spans is not None else []

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Reports the exporter and its settings."""
        config = self._config
        return {"exporter": config.exporter, "sample_ratio": config.sample_ratio, "content": config.content}
