"""Where spans go: to a collector over OTLP, or to the console. In a thread, through a bounded queue.

The provider is the gateway's own; the process's global one stays as it is.
"""

import sys
from collections.abc import Mapping
from typing import Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from gateway_core import ConfigError, __version__

MOST_WAITING = 2048
"""Spans that may wait to be sent; further ones are dropped."""


def provider(
    exporter: Literal["otlp", "console"], endpoint: str, headers: Mapping[str, str], ratio: float, seconds: float
) -> TracerProvider:
    """A provider that exports.

    Args:
        exporter: Where to.
        endpoint: The collector's base URL.
        headers: Sent to the collector.
        ratio: How many of the traces that begin here are kept.
        seconds: How long one export may take.

    Raises:
        ConfigError: The exporter's package is not installed.
    """
    made = TracerProvider(
        ParentBased(TraceIdRatioBased(ratio)),
        Resource.create({"service.name": "agent-gateway", "service.version": __version__}),
        shutdown_on_exit=False,
    )
    target = _otlp(endpoint, headers, seconds) if exporter == "otlp" else ConsoleSpanExporter(out=sys.stderr)
    made.add_span_processor(BatchSpanProcessor(target, MOST_WAITING, 1000, 512, seconds * 1000))
    return made


def _otlp(endpoint: str, headers: Mapping[str, str], seconds: float) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "the package that sends spans to a collector is not installed",
            source="[plugins.tracing] exporter",
            hint='pip install "agent-gateway[otlp]"',
        ) from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", headers=dict(headers), timeout=seconds)
