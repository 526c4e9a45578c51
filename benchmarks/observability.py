"""Measures the overhead of the observability plugins: `python benchmarks/observability.py`.

Measures the CPU time per request and per streamed token of three gateways with the same upstream process, alternately:
without observability plugins, with those that are enabled by default, and in addition with spans of every request sent
to a collector. With BENCH_EACH=1, measures each plugin separately.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from run import HERE, ROUNDS, TOKENS, cpu_seconds, free_port, load, wait_for

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "600"))
STREAMS = int(os.environ.get("BENCH_STREAMS", "100"))
WATCHING = ("request_log", "error_recorder", "metrics", "loop_monitor")


class Collector(BaseHTTPRequestHandler):
    """Receives spans and discards them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def measure(port: int, pid: int) -> tuple[float, float]:
    """Return the CPU milliseconds per request, and the CPU microseconds per streamed token."""
    before = cpu_seconds(pid)
    asyncio.run(load(port, REQUESTS, stream=False))
    request = (cpu_seconds(pid) - before) / REQUESTS * 1e3
    before = cpu_seconds(pid)
    asyncio.run(load(port, STREAMS, stream=True))
    return request, (cpu_seconds(pid) - before) / (STREAMS * TOKENS) * 1e6


def _without(*plugins: str) -> dict[str, str]:
    return {f"GATEWAY__PLUGINS__{name.upper()}__ENABLED": "false" for name in plugins}


def main() -> None:
    """Run all measurements."""
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    off = _without(*WATCHING)
    traced = {
        "GATEWAY__PLUGINS__TRACING__EXPORTER": "otlp",
        "GATEWAY__PLUGINS__TRACING__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
    }
    variants = {"off": off, "on": {}, "on, traced": traced}
    if os.environ.get("BENCH_EACH"):
        variants = {"off": off} | {name: _without(*(o for o in WATCHING if o != name)) for name in WATCHING}
    upstream_port = free_port()
    shared = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "OPENAI_API_KEY": "none"}
    processes = [subprocess.Popen([sys.executable, str(HERE / "upstream.py"), str(upstream_port), str(TOKENS)])]
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    try:
        wait_for(upstream_port)
        running = {}
        for name, environment in variants.items():
            port = free_port()
            command = [os.path.join(os.path.dirname(sys.executable), "agent-gateway"), "serve"]
            command += ["--agents", str(HERE / "agents"), "--port", str(port)]
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(command, env={**shared, **environment}, stdout=quiet, stderr=quiet)
            processes.append(process)
            running[name] = (port, process.pid)
            wait_for(port)
            asyncio.run(load(port, 50, stream=True))
            asyncio.run(load(port, 50, stream=False))
        for _ in range(ROUNDS):
            for name, place in running.items():
                results[name].append(measure(*place))
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
        collector.shutdown()
    print(f"{'median of ' + str(ROUNDS) + ' rounds':20}{'ms a request':>14}{'ratio':>8}{'us a token':>14}{'ratio':>8}")
    for name, rounds in results.items():
        cells = ""
        for index in (0, 1):
            ratio = statistics.median(r[index] / o[index] for r, o in zip(rounds, results["off"], strict=True))
            cells += f"{statistics.median(r[index] for r in rounds):14.2f}{ratio:8.3f}"
        print(f"{name:20}{cells}")


if __name__ == "__main__":
    main()
