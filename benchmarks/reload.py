"""Measures reloads: the delay, the overhead of watching, and the effect on streams: `python benchmarks/reload.py`.

Uses the real command with 1,000 agents. Linux only: memory and CPU time are read from `/proc`.
"""

import asyncio
import itertools
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

AGENTS = 1000
STREAMS = 20
EDITS = 300
EDIT_SECONDS = 60.0
TICK = 0.01
IDLE_SECONDS = 30.0

SAYING = "async def run(messages):\n    return {says!r}\n"
TICKING = f"""
import asyncio, time

async def run(messages):
    for _ in range(int(messages[-1]["content"])):
        await asyncio.sleep({TICK})
        yield f"{{time.monotonic()}} "
"""
BUSY = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n    pass\n"


@asynccontextmanager
async def serving(folder: Path, settings: str = "") -> AsyncIterator[tuple[httpx2.AsyncClient, int]]:
    """Start a gateway that watches a folder; yield a client and the process id."""
    (folder / "gateway.toml").write_text(f"[plugins.entry_point_discovery]\nenabled = false\n{settings}")
    command = Path(sys.executable).with_name("agent-gateway")
    process = await asyncio.create_subprocess_exec(
        command, "serve", "--offline", "--port", "0", cwd=folder, stdout=-1, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        url = ""
        while not (line := await process.stdout.readline()).startswith(b"Press Ctrl+C"):
            if found := re.search(rb"listening on (http://\S+)/v1", line):
                url = found[1].decode()
        async with httpx2.AsyncClient(base_url=url, timeout=120, limits=httpx2.Limits(max_connections=100)) as client:
            # The first scan of the watcher runs after startup.
            while not (await facts(client))["reloads"]:
                await asyncio.sleep(0.05)
            yield client, process.pid
    finally:
        process.terminate()
        await process.wait()


async def facts(client: httpx2.AsyncClient) -> dict[str, object]:
    """Return the facts of the plugin `hot_reload`."""
    plugins = (await client.get("/admin/plugins")).json()["plugins"]
    found: dict[str, object] = next(plugin["facts"] for plugin in plugins if plugin["name"] == "hot_reload")
    return found


def body(model: str, text: str, *, stream: bool = False) -> dict[str, object]:
    """Return a chat request."""
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}


async def ask(client: httpx2.AsyncClient, model: str) -> str:
    """Return an agent's answer."""
    answer = await client.post("/v1/chat/completions", json=body(model, "x"))
    answer.raise_for_status()
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


async def gaps(client: httpx2.AsyncClient, seconds: float) -> list[float]:
    """Return the milliseconds between the chunks of a stream with one chunk per `TICK`."""
    times: list[float] = []
    request = body("Ticking", str(int(seconds / TICK)), stream=True)
    async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
        answer.raise_for_status()
        text = ""
        async for line in answer.aiter_lines():
            if '"content":"' in line:
                times.append(time.monotonic())
            text = line or text
    assert text == "data: [DONE]", text
    return [(after - before) * 1000 for before, after in itertools.pairwise(times)]


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def show(name: str, value: object) -> None:
    """Print a measurement."""
    print(f"{name:66} {value}", flush=True)


def p99(values: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(values, n=100)[98]


async def one_of_a_thousand(folder: Path, client: httpx2.AsyncClient) -> None:
    """Measure the time from saving one agent to its new answer."""
    took = []
    for number in range(7):
        path = folder / "agents" / "group3" / "Agent303" / "agent.py"
        path.write_text(SAYING.format(says=f"edit {number}"))
        began = time.monotonic()
        while await ask(client, "group3/Agent303") != f"edit {number}":
            # Polling competes for CPU time with the reload.
            await asyncio.sleep(0.02)
        took.append((time.monotonic() - began) * 1000)
        await asyncio.sleep(1.5)
    show("saving one of 1,000 agents: milliseconds to its new answer, median", f"{statistics.median(took):.0f}")
    show("  including the default debounce", 200)


async def slow_import(folder: Path, client: httpx2.AsyncClient) -> None:
    """Measure the gaps in streams while an import keeps a CPU busy for 3 s."""
    quiet = await asyncio.gather(*(gaps(client, 4) for _ in range(STREAMS)))
    streams = asyncio.gather(*(gaps(client, 5) for _ in range(STREAMS)))
    (folder / "agents" / "Slow.py").write_text(BUSY + SAYING.format(says="slow"))
    busy = await streams
    before, after = p99([gap for one in quiet for gap in one]), p99([gap for one in busy for gap in one])
    show("20 streams, an agent that takes 3 s to import: gap p99, ms", f"{after:.1f} (quiet: {before:.1f})")


async def many_edits(folder: Path, client: httpx2.AsyncClient, pid: int) -> None:
    """Edit an agent 300 times in a minute while 20 streams run."""
    streams = [asyncio.create_task(gaps(client, EDIT_SECONDS + 2)) for _ in range(STREAMS)]
    await asyncio.sleep(1)
    before, refused = megabytes(pid), 0
    for number in range(EDITS):
        (folder / "agents" / "Edited.py").write_text(SAYING.format(says=f"edit {number}"))
        answer = await client.post("/v1/chat/completions", json=body("Edited", "x"))
        refused += answer.status_code != 200 and number > 5  # the first saves may not be detected yet
        await asyncio.sleep(EDIT_SECONDS / EDITS)
    broken = sum(isinstance(one, BaseException) for one in await asyncio.gather(*streams, return_exceptions=True))
    while await ask(client, "Edited") != f"edit {EDITS - 1}":
        await asyncio.sleep(0.01)
    show("300 edits in a minute with 20 streams: interrupted streams", broken)
    show("  rejected requests", refused)
    show("  memory, MiB, before and after", f"{before:.0f} and {megabytes(pid):.0f}")


async def idle(pid: int, name: str) -> None:
    """Measure the CPU time of watching while idle."""
    await asyncio.sleep(3)
    before = processor_seconds(pid)
    await asyncio.sleep(IDLE_SECONDS)
    show(
        f"watching 1,000 folders, {name}: percent of a CPU",
        f"{(processor_seconds(pid) - before) / IDLE_SECONDS:.2%}",
    )


async def main() -> None:
    """Run all measurements."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(AGENTS):
            path = folder / "agents" / f"group{number % 10}" / f"Agent{number}" / "agent.py"
            path.parent.mkdir(parents=True)
            path.write_text(SAYING.format(says=f"number {number}"))
        (folder / "agents" / "Ticking.py").write_text(TICKING)
        async with serving(folder) as (client, pid):
            await idle(pid, "events")
            await one_of_a_thousand(folder, client)
            await slow_import(folder, client)
            await many_edits(folder, client, pid)
        async with serving(folder, '[plugins.hot_reload]\nmode = "poll"\n') as (_, pid):
            await idle(pid, "polling")


if __name__ == "__main__":
    asyncio.run(main())
