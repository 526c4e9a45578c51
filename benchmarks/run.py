"""Compares the gateway with a hand-written server: CPU time per request and per streamed token, time to first token.

Both are real processes with the same upstream process. They are measured alternately, so that changes of the machine's
speed affect both. CPU time is that of the server process, as reported by the kernel. Compare the ratios.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TOKENS = 200
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "300"))
STREAMS = int(os.environ.get("BENCH_STREAMS", "60"))
CONCURRENCY = 16
TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def request_bytes(port: int, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    body = json.dumps({"model": "Bench", "messages": messages, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def one(port: int, request: bytes, *, stream: bool) -> float:
    """Return the seconds to the first token, or to the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(request)
    seen, first = b"", 0.0
    while True:
        piece = await reader.read(65536)
        if not piece:
            raise SystemExit(f"the server closed: {seen[-300:]!r}")
        seen += piece
        if not first and (b"word0" in seen or not stream):
            first = time.perf_counter() - began
        if seen.endswith(b"0\r\n\r\n") if stream else b"usage" in seen:
            break
    writer.close()
    if b" 200" not in seen[:20] or b"word199" not in seen:
        raise SystemExit(f"a wrong answer: {seen[:300]!r}")
    return first


async def load(port: int, count: int, *, stream: bool) -> list[float]:
    request = request_bytes(port, stream=stream)
    gate = asyncio.Semaphore(CONCURRENCY)

    async def limited() -> float:
        async with gate:
            return await one(port, request, stream=stream)

    return await asyncio.gather(*(limited() for _ in range(count)))


def measure(port: int, pid: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    before, began = cpu_seconds(pid), time.perf_counter()
    asyncio.run(load(port, REQUESTS, stream=False))
    figures["requests/s"] = REQUESTS / (time.perf_counter() - began)
    figures["CPU s / 1,000 requests"] = (cpu_seconds(pid) - before) / REQUESTS * 1000
    before = cpu_seconds(pid)
    asyncio.run(load(port, STREAMS, stream=True))
    figures["CPU s / 10,000 tokens"] = (cpu_seconds(pid) - before) / (STREAMS * TOKENS) * 10_000
    alone = [asyncio.run(load(port, 1, stream=True))[0] for _ in range(20)]
    figures["ms to first token, alone"] = statistics.median(alone) * 1000
    return figures


def main() -> None:
    upstream_port, ports = free_port(), {"baseline": free_port(), "gateway": free_port()}
    # A dummy OPENAI_API_KEY, so that neither server calls OpenAI.
    environment = {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "OPENAI_API_KEY": "none"}
    upstream = [sys.executable, str(HERE / "upstream.py"), str(upstream_port), str(TOKENS)]
    commands = {
        "baseline": [sys.executable, str(HERE / "baseline.py"), str(ports["baseline"])],
        "gateway": [
            str(Path(sys.executable).with_name("agent-gateway")), "serve",
            "--agents", str(HERE / "agents"), "--port", str(ports["gateway"]),
        ],
    }  # fmt: skip
    processes = [subprocess.Popen(upstream)]
    results: dict[str, list[dict[str, float]]] = {"baseline": [], "gateway": []}
    try:
        wait_for(upstream_port)
        pids = {}
        for name, command in commands.items():
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            processes.append(process)
            pids[name] = process.pid
            wait_for(ports[name])
            asyncio.run(load(ports[name], 30, stream=True))
            asyncio.run(load(ports[name], 30, stream=False))
        for _ in range(ROUNDS):
            for name in commands:
                results[name].append(measure(ports[name], pids[name]))
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)
    print(f"{'median of ' + str(ROUNDS) + ' rounds':28}{'baseline':>12}{'gateway':>12}{'ratio':>8}")
    for figure in results["baseline"][0]:
        base, ours = (statistics.median(r[figure] for r in results[name]) for name in ("baseline", "gateway"))
        pairs = zip(results["gateway"], results["baseline"], strict=True)
        ratio = statistics.median(g[figure] / b[figure] for g, b in pairs)
        print(f"{figure:28}{base:12.3f}{ours:12.3f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
