"""Traces of requests, runs, model calls, tools, handoffs and guardrails, as OpenTelemetry spans.

It makes none by default. Prompts, answers and arguments are in no span unless an operator asks for them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, frozen
from starlette.middleware import Middleware

from gateway_core import ConfigError, Gateway, Secret, hookimpl
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
    """Where spans go; with `none` there are none."""
    otlp_endpoint: str = "http://127.0.0.1:4318"
    """The base URL of a collector that takes OTLP over HTTP."""
    otlp_headers: dict[str, Secret] = Factory(dict)
    """Sent to the collector."""
    sample_ratio: float = 1.0
    """Of the traces that begin here; where a client sends a trace, its decision counts."""
    content: bool = False
    """Whether prompts, answers, tool arguments and results stand in spans."""


class Tracing:
    """The plugin `tracing`."""

    Config = Settings

    def __init__(self, gateway: Gateway, config: Settings) -> None:
        if not 0 <= config.sample_ratio <= 1:
            raise ConfigError("must be between 0 and 1", source="[plugins.tracing] sample_ratio")
        self._config = config
        self._spans: Spans | None = None

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open the way to the exporter, and send what is left when the gateway stops."""
        config = self._config
        if config.exporter == "none":
            yield
            return
        from gateway_plugins.tracing.export import provider
        from gateway_plugins.tracing.spans import Spans

        if config.content:
            logger.warning("[plugins.tracing] content = true: prompts, answers and tool arguments leave in spans")
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
        """A span for each request."""
        return [Middleware(RequestSpans, spans=lambda: self._spans)] if self._config.exporter != "none" else []

    @hookimpl
    def trace_processors(self) -> "Iterable[TracingProcessor]":
        """Spans for what the Agents SDK tells of."""
        return [self._spans] if self._spans is not None else []

    @hookimpl
    def describe(self) -> Mapping[str, Any]:
        """Where spans go, and what is in them."""
        config = self._config
        return {"exporter": config.exporter, "sample_ratio": config.sample_ratio, "content": config.content}
