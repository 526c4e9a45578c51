"""Exports metrics as Prometheus text, and over OTLP if a collector is configured.

Each gateway has its own meter provider and registry; the process's global ones are not changed. Export runs in threads,
so that a slow reader or an unreachable collector does not delay requests.
"""

import errno
import hmac
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from socketserver import TCPServer, ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, make_wsgi_app

from gateway_core import ConfigError, Secret, __version__, host_and_port

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHUTDOWN_SECONDS = 2.0


class Registry(CollectorRegistry):
    """A registry with serialized reads, because the exporter is not safe for concurrent collection."""

    def __init__(self) -> None:
        super().__init__()
        self._one_reader = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Collects all metrics."""
        with self._one_reader:
            return iter([*super().collect()])


class Export:
    """The meter provider of one gateway, with its readers.

    Args:
        otlp_endpoint: Base URL of an OTLP/HTTP collector; an empty string disables OTLP.
        headers: HTTP headers for the collector.
        interval: Seconds between exports to the collector.

    Raises:
        ConfigError: A collector is configured, but the exporter package is not installed.
    """

    def __init__(self, otlp_endpoint: str, headers: Mapping[str, str], interval: float) -> None:
        self.registry = Registry()
        readers: list[MetricReader] = [PrometheusMetricReader(registry=self.registry, scope_info_enabled=False)]
        if otlp_endpoint:
            readers.append(_otlp_reader(otlp_endpoint, headers, interval))
        self._provider = MeterProvider(
            readers,
            Resource.create({"service.name": "agent-gateway", "service.version": __version__}),
            # Exemplars need the context of each measurement, which costs time and is not exported.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self.meter = self._provider.get_meter("agent_gateway", __version__)

    def text(self) -> bytes:
        """Returns all series as Prometheus text. Blocking."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Flushes the exporters and shuts down. Blocks for up to `SHUTDOWN_SECONDS`."""
        self._provider.shutdown(timeout_millis=SHUTDOWN_SECONDS * 1000)


def _otlp_reader(endpoint: str, headers: Mapping[str, str], interval: float) -> MetricReader:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise ConfigError(
            "the OTLP exporter is not installed",
            source="[plugins.metrics] otlp_endpoint",
            hint='pip install "agent-gateway[otlp]"',
        ) from error
    exporter = OTLPMetricExporter(f"{endpoint.rstrip('/')}/v1/metrics", headers=dict(headers), timeout=SHUTDOWN_SECONDS)
    return PeriodicExportingMetricReader(exporter, interval * 1000, SHUTDOWN_SECONDS * 1000)


@contextmanager
def listening(address: str, registry: CollectorRegistry, key: Secret | None) -> Iterator[None]:
    """Serves the metrics at a separate address, such as `127.0.0.1:9464`, in a thread.

    Raises:
        ConfigError: The address is invalid or in use.
    """
    host, port = host_and_port(address)
    try:
        server = _Server((host.strip("[]"), port), _Quiet)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror or error}",
            source="[plugins.metrics] listen",
            hint="choose another port" if in_use else "use an address of this machine and a port from 1024",
            code="address_in_use" if in_use else None,
        ) from error
    server.set_app(_require_key(make_wsgi_app(registry), key) if key else make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_key(key: Secret, authorization: str | None) -> bool:
    """Whether a request's `authorization` header carries the key."""
    scheme, _, given = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.reveal().encode())


def _require_key(app: WSGIApplication, key: Secret) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_key(key, environ.get("HTTP_AUTHORIZATION")):
            return app(environ, start_response)
        start_response("401 Unauthorized", [("content-type", "text/plain"), ("www-authenticate", "Bearer")])
        return [b"missing or invalid metrics key\n"]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        # WSGIServer would resolve the host name here, which can block on DNS.
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: object) -> None:
        """Does nothing: scrapes are not logged."""
