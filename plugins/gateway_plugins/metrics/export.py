"""From instruments to those who read them: Prometheus text, and OTLP where a collector is configured.

Each gateway has a provider and a registry of its own; the process's global ones stay as they are. Exporting happens in
threads, so that no reader and no dead collector delays a request.
"""

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

from gateway_core import ConfigError, Secret, __version__

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHUTDOWN_SECONDS = 2.0


class Registry(CollectorRegistry):
    """A registry that is read by one reader at a time: the exporter mixes up two."""

    def __init__(self) -> None:
        super().__init__()
        self._one_reader = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Everything at this moment."""
        with self._one_reader:
            return iter([*super().collect()])


class Export:
    """What reads the instruments of one gateway.

    Args:
        otlp_endpoint: The base URL of a collector that takes OTLP over HTTP; none without.
        headers: Sent to the collector.
        interval: Seconds between exports to it.

    Raises:
        ConfigError: A collector is configured, and the package for it is not installed.
    """

    def __init__(self, otlp_endpoint: str, headers: Mapping[str, str], interval: float) -> None:
        self.registry = Registry()
        readers: list[MetricReader] = [PrometheusMetricReader(registry=self.registry, scope_info_enabled=False)]
        if otlp_endpoint:
            readers.append(_otlp_reader(otlp_endpoint, headers, interval))
        self._provider = MeterProvider(
            readers,
            Resource.create({"service.name": "agent-gateway", "service.version": __version__}),
            # An exemplar needs the context of each measurement, which nobody reads.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self.meter = self._provider.get_meter("agent_gateway", __version__)

    def text(self) -> bytes:
        """All series as Prometheus text. Blocking."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Send what is left to the collector, and stop. Blocking, for a short while."""
        self._provider.shutdown(timeout_millis=SHUTDOWN_SECONDS * 1000)


def _otlp_reader(endpoint: str, headers: Mapping[str, str], interval: float) -> MetricReader:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise ConfigError(
            "the package that sends metrics to a collector is not installed",
            source="[plugins.metrics] otlp_endpoint",
            hint='pip install "agent-gateway[otlp]"',
        ) from error
    exporter = OTLPMetricExporter(f"{endpoint.rstrip('/')}/v1/metrics", headers=dict(headers), timeout=SHUTDOWN_SECONDS)
    return PeriodicExportingMetricReader(exporter, interval * 1000, SHUTDOWN_SECONDS * 1000)


@contextmanager
def listening(address: str, registry: CollectorRegistry, key: Secret | None) -> Iterator[None]:
    """Answer scrapes at an address of their own, such as `127.0.0.1:9464`, in a thread.

    Raises:
        ConfigError: It is no address, or cannot be listened on.
    """
    host, _, port = address.rpartition(":")
    try:
        if not host:
            raise ValueError("no host")
        server = _Server((host.strip("[]"), int(port)), _Quiet)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {address}: {getattr(error, 'strerror', None) or 'write it as host:port'}",
            source="[plugins.metrics] listen",
        ) from error
    server.set_app(_locked(make_wsgi_app(registry), key) if key else make_wsgi_app(registry))
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


def _locked(app: WSGIApplication, key: Secret) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_key(key, environ.get("HTTP_AUTHORIZATION")):
            return app(environ, start_response)
        start_response("401 Unauthorized", [("content-type", "text/plain"), ("www-authenticate", "Bearer")])
        return [b"the metrics have a key of their own, and this is not it\n"]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        # Not the host's full name, for which WSGIServer would ask the network.
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the gateway logs requests in its own form."""
