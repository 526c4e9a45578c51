"""Creates the tracer provider, which exports spans to an OTLP collector or to the console.

Export runs in a thread with a bounded queue. The process's global tracer provider is not changed.
"""

import sys
from collections.abc import Mapping
from typing import Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from gateway_core import ConfigError, __version__

MAX_QUEUE_SIZE = 2048
"""Maximum number of queued spans; when the queue is full, spans are dropped."""


def provider(
    exporter: Literal["otlp", "console"], endpoint: str, headers: Mapping[str, str], ratio: float, seconds: float
) -> TracerProvider:
    """Creates a tracer provider with an exporter.

    Args:
        exporter: The exporter's name.
        endpoint: Base URL of the collector.
        headers: HTTP headers for the collector.
        ratio: Fraction of the traces started by the gateway that are sampled.
        seconds: Timeout of one export.

    Raises:
        ConfigError: The exporter's package is not installed.
    """
    made = TracerProvider(
        ParentBased(TraceIdRatioBased(ratio)),
        Resource.create({"service.name": "agent-gateway", "service.version": __version__}),
        shutdown_on_exit=False,
    )
    target = _otlp(endpoint, headers, seconds) if exporter == "otlp" else ConsoleSpanExporter(out=sys.stderr)
    made.add_span_processor(BatchSpanProcessor(target, MAX_QUEUE_SIZE, 1000, 512, seconds * 1000))
    return made


def _otlp(endpoint: str, headers: Mapping[str, str], seconds: float) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "the OTLP exporter is not installed",
            source="[plugins.tracing] exporter",
            hint='pip install "agent-gateway[otlp]"',
        ) from error
    return OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", headers=dict(headers), timeout=seconds)
