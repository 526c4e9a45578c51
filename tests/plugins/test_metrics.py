"""Metrics: exact values, bounded cardinality, access control and export."""

import asyncio
import secrets
import socket
import threading

import httpx2
import pytest
from agents import Agent, function_tool
from gateway_plugins.metrics.batching import MAX_PENDING, Count, Recorder, flushing
from gateway_plugins.metrics.export import Export
from gateway_plugins.metrics.labels import CardinalityLimit
from prometheus_client.parser import text_string_to_metric_families

from gateway_core import ConfigError
from gateway_core.hooks.specs import hookimpl
from gateway_core.testing import call, gateway_in_memory, script
from gateway_core.types import BackgroundTask, Decision, Principal
from tests.support.collector import Collector
from tests.support.upstream import FakeUpstream


def body(model: str = "X", text: str = "canary-of-a-prompt", **more: object) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


class Scrape:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Returns the sum of all series with this name and these labels."""
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        assert found, f"no series {name} {labels}"
        return sum(found)

    def has(self, name: str) -> bool:
        return any(sample.name == name for sample in self.samples)


async def scrape(g) -> Scrape:
    answer = await g.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.text)


def tools() -> list:
    @function_tool
    def good() -> str:
        """Do well."""
        return "canary-of-a-result"

    @function_tool
    def bad() -> str:
        """Fail."""
        raise ValueError("canary-of-an-error")

    return [good, bad]


async def test_metrics_have_exact_values(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package_anywhere\n")
    agent = Agent(name="x", model="special", tools=tools())
    with FakeUpstream() as upstream:
        up = {"base_url": upstream.base_url, "default_model": "m", "max_retries": 0}
        config = {"plugins": {"upstreams": {"up": up}, "requirements": {"enabled": False}}}
        async with gateway_in_memory({"X": agent}, folder=tmp_path, config=config) as g:
            for text in ("hi", "call good {}", "call bad {} then call good {}"):
                assert (await g.http.post("/v1/chat/completions", json=body(text=text))).status_code == 200
            async with g.http.stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer:
                await answer.aread()
            assert (await g.http.post("/v1/chat/completions", json=body(text="fail 500"))).status_code == 502
            async with g.http.stream(
                "POST", "/v1/chat/completions", json=body(text="hang-after 1", stream=True)
            ) as answer:
                await anext(answer.aiter_bytes())
            assert (await g.http.get("/nowhere")).status_code == 404
            before = g.gateway.catalog.generation
            (tmp_path / "other.py").write_text("async def run(messages):\n    return 'x'\n")
            await g.gateway.reload()
            found = await scrape(g)
            ended = g.ended
    assert found.sum("agent_gateway_runs_total", agent="X", outcome="ok") == 4
    assert found.sum("agent_gateway_runs_total", agent="X", outcome="error") == 1
    assert found.sum("agent_gateway_runs_total", agent="X", outcome="cancelled") == 1
    assert found.sum("agent_gateway_disconnects_total", agent="X") == 1
    assert found.sum("agent_gateway_runs_active") == 0
    assert found.sum("gen_ai_server_request_duration_seconds_count", gen_ai_request_model="X") == 6
    assert found.sum("gen_ai_server_request_duration_seconds_count", error_type="upstream_error") == 1
    assert found.sum("gen_ai_server_time_to_first_token_seconds_count", gen_ai_request_model="X") == 5
    # 1 + 2 + 3 turns, a stream of one turn, one failed and one disconnected request
    calls = "gen_ai_client_operation_duration_seconds_count"
    assert found.sum(calls, gen_ai_request_model="special", gen_ai_agent_name="X") == 9
    assert found.sum(calls, error_type="error") == 1
    assert found.sum(calls, error_type="cancelled") == 1
    assert found.sum("gen_ai_client_operation_time_to_first_chunk_seconds_count") == 2
    for kind in ("input", "output"):
        tokens = sum(getattr(outcome.usage, f"{kind}_tokens") for _, outcome in ended)
        assert found.sum("gen_ai_client_token_usage_sum", gen_ai_token_type=kind) == tokens > 0
    tool = "agent_gateway_tool_duration_seconds_count"
    assert found.sum(tool, tool="good", source="sdk-native", outcome="ok") == 2
    assert found.sum(tool, tool="bad", source="sdk-native", outcome="error") == 1
    assert found.sum("agent_gateway_agents", state="ok") == 2
    assert found.sum("agent_gateway_agents", state="broken") == 1
    assert found.sum("agent_gateway_agents", state="stale") == 0
    assert found.sum("agent_gateway_load_failures_total", kind="dependency", agent="broken") == 1
    assert found.sum("agent_gateway_catalog_builds_total") == before + 1
    assert found.sum("agent_gateway_catalog_build_duration_seconds") > 0
    assert found.sum("agent_gateway_errors_total", stage="upstream", code="upstream_error") == 1
    requests = "http_server_request_duration_seconds_count"
    chat = {"http_route": "/v1/chat/completions", "http_request_method": "POST"}
    assert found.sum(requests, **chat, http_response_status_code="200") == 4
    assert found.sum(requests, **chat, http_response_status_code="502") == 1
    assert found.sum(requests, **chat, http_response_status_code="499") == 1
    assert found.sum(requests, http_route="_unknown", http_response_status_code="404") == 1
    assert found.sum("http_server_active_requests") == 1  # the scrape itself
    assert found.sum("agent_gateway_decisions_total", kind="agent", source="open", outcome="allowed") == 6
    assert "canary" not in found.text


async def test_unknown_models_create_no_series():
    async with gateway_in_memory({"X": Agent(name="x", model=script("a"))}) as g:

        async def ask(number: int) -> None:
            json = body(model=secrets.token_hex(8))
            assert (await g.http.post("/v1/chat/completions", json=json)).status_code == 404
            if number % 10 < 2:
                await g.http.request(["GET", f"BREW{number}"][number % 10], f"/{secrets.token_hex(8)}")

        await asyncio.gather(*(ask(number) for number in range(100)))
        await scrape(g)  # creates the series of the scrape itself
        before = await scrape(g)
        for _ in range(20):
            await asyncio.gather(*(ask(number) for number in range(100)))
        after = await scrape(g)
    names = [(sample.name, sample.labels) for sample in before.samples]
    there = [(sample.name, sample.labels) for sample in after.samples]
    assert [each for each in there if each not in names] == []
    assert after.sum("agent_gateway_errors_total", code="model_not_found") == 2_100


def test_label_cardinality_is_limited():
    few = CardinalityLimit(2)
    assert [few(value) for value in "abcab"] == ["a", "b", "_unknown", "a", "b"]


async def test_background_tasks_do_not_count_as_agent_runs():
    class Tasks:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        def background_task(self):
            return BackgroundTask("title", answer="A title", local=True)

    config = {"plugins": {"ui_tasks": {"enabled": False}}}
    async with gateway_in_memory({"X": Agent(name="x")}, plugins={"tasks": Tasks}, config=config) as g:
        await g.http.post("/v1/chat/completions", json=body())
        found = await scrape(g)
    assert found.sum("agent_gateway_background_tasks_total", kind="title", outcome="ok") == 1
    assert not found.has("agent_gateway_runs_total")


async def test_keep_alives_and_tool_decisions_are_counted():
    wait = asyncio.Event()

    @function_tool
    async def slow() -> str:
        """Wait."""
        await wait.wait()
        return "done"

    class Policy:
        def __init__(self, *_: object) -> None:
            pass

        @hookimpl
        async def authorize_tool(self, tool):
            return Decision(tool.name == "slow", "mine")

    agent = Agent(name="x", tools=[slow, *tools()], model=script(["a", call("slow")], call("good"), "b"))
    config = {"http": {"sse_keep_alive": 0.01}}
    async with gateway_in_memory({"X": agent}, plugins={"policy": Policy}, config=config) as g:
        seen = b""
        async with g.http.stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer:
            async for piece in answer.aiter_bytes():
                seen += piece
                if b": keep-alive" in seen:
                    wait.set()
        found = await scrape(g)
    assert found.sum("agent_gateway_keep_alives_total", agent="X") == seen.count(b": keep-alive")
    assert found.sum("agent_gateway_decisions_total", kind="tool", source="mine", outcome="allowed") == 1
    assert found.sum("agent_gateway_decisions_total", kind="tool", source="mine", outcome="refused") == 1
    assert found.sum("agent_gateway_tool_duration_seconds_count", tool="good", outcome="refused") == 1


class User:
    def __init__(self, *_: object) -> None:
        pass

    @hookimpl
    async def authenticate(self):
        return Principal("user")


@pytest.mark.parametrize(("open_", "status"), [(False, 403), (True, 200)])
async def test_access_to_the_metrics(open_, status):
    config = {"plugins": {"metrics": {"open": open_}}}
    async with gateway_in_memory({}, plugins={"user": User}, config=config) as g:
        assert (await g.http.get("/metrics")).status_code == status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_separate_address_needs_no_key_and_closes_on_shutdown():
    address = f"127.0.0.1:{free_port()}"
    config = {"plugins": {"metrics": {"listen": address}}}
    async with httpx2.AsyncClient() as client:
        async with gateway_in_memory({}, plugins={"user": User}, config=config):
            found = Scrape((await client.get(f"http://{address}/metrics")).text)
            assert found.sum("agent_gateway_catalog_builds_total") == 1
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"http://{address}/metrics")


async def test_the_metrics_key_is_required_at_both_addresses():
    address = f"127.0.0.1:{free_port()}"
    config = {"plugins": {"metrics": {"listen": address, "key": "scrapers-key"}}}
    async with httpx2.AsyncClient() as client, gateway_in_memory({}, plugins={"user": User}, config=config) as g:

        async def ask(ask, url):
            found = [await ask(url, headers=h) for h in ({}, *({"authorization": f"Bearer {k}"} for k in KEYS))]
            return [each.status_code for each in found]

        KEYS = ["none", "scrapers-key"]
        assert await ask(client.get, f"http://{address}/metrics") == [401, 401, 200]
        assert await ask(g.http.get, "/metrics") == [401, 401, 200]
        assert "scrapers-key" not in str(g.gateway.hooks.describe())
        assert (await g.http.get("/admin/plugins", headers={"authorization": "Bearer scrapers-key"})).status_code == 403


async def test_open_metrics_cannot_have_a_key():
    with pytest.raises(ConfigError, match="mutually exclusive"):
        async with gateway_in_memory({}, config={"plugins": {"metrics": {"open": True, "key": "k"}}}):
            pass


@pytest.mark.parametrize("address", ["9464", "127.0.0.1:http", "127.0.0.1:99999", "taken"])
async def test_an_unusable_address_is_reported(address):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        if address == "taken":
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"cannot listen on|is not a valid address"):
            async with gateway_in_memory({}, config={"plugins": {"metrics": {"listen": address}}}):
                pass


async def test_two_gateways_in_one_process_have_separate_metrics():
    async with gateway_in_memory({"X": Agent(name="x", model=script("a"))}) as one, gateway_in_memory({}) as two:
        await one.http.post("/v1/chat/completions", json=body())
        assert (await scrape(one)).sum("agent_gateway_runs_total") == 1
        assert not (await scrape(two)).has("agent_gateway_runs_total")


async def test_concurrent_scrapes_are_complete():
    async with gateway_in_memory({"X": Agent(name="x", model=script("a"))}) as g:
        await g.http.post("/v1/chat/completions", json=body())
        for found in await asyncio.gather(*(scrape(g) for _ in range(8))):
            assert found.sum("agent_gateway_runs_total") == 1


async def test_a_collector_receives_metrics_with_its_headers():
    with Collector() as collector:
        config = {"plugins": {"metrics": {"otlp_endpoint": collector.url, "otlp_headers": {"x-key": "secret"}}}}
        async with gateway_in_memory({"X": Agent(name="x", model=script("a"))}, config=config) as g:
            await g.http.post("/v1/chat/completions", json=body())
            assert "secret" not in str(g.gateway.hooks.describe()["metrics"])
    assert collector.headers == ["secret"]
    assert b"agent_gateway.runs" in b"".join(collector.bodies)


async def test_an_unreachable_collector_does_not_delay_requests():
    with Collector(dead=True) as collector:
        metrics = {"otlp_endpoint": collector.url, "otlp_interval": 0.01}
        agent = Agent(name="x", model=script(*["a"] * 5))
        async with gateway_in_memory({"X": agent}, config={"plugins": {"metrics": metrics}}) as g:
            assert await asyncio.to_thread(collector.asked.wait, 10)
            # Requests and scrapes complete while the collector hangs.
            for _ in range(5):
                assert (await g.http.post("/v1/chat/completions", json=body())).status_code == 200
            assert (await scrape(g)).sum("agent_gateway_runs_total") == 5
            assert not collector.bodies
            collector.release.set()


async def test_a_missing_exporter_package_is_reported(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(ConfigError, match=r"agent-gateway\[otlp\]"):
        async with gateway_in_memory({}, config={"plugins": {"metrics": {"otlp_endpoint": "http://127.0.0.1:1"}}}):
            pass


def test_no_measurement_is_lost_between_threads():
    export = Export("", {}, 60.0)
    recorder = Recorder()
    histogram = export.meter.create_histogram("h", "{x}", "H.")
    counted = Count(export.meter, "c", "{x}", "C.", "kind")
    export.meter.create_observable_gauge("g", [flushing(recorder, lambda: ())])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            export.text()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(10_001):
        recorder.record(histogram, 1.0, {})
        counted.add(str(number % 3), count=2)
    stop.set()
    for reader in readers:
        reader.join()
    found = Scrape(export.text().decode())
    assert found.sum("h_count") == 10_001
    assert found.sum("c_total") == 20_002
    export.close()


def test_pending_values_are_flushed_at_the_limit():
    recorder = Recorder()
    export = Export("", {}, 60.0)
    histogram = export.meter.create_histogram("h", "{x}", "H.")
    for _ in range(MAX_PENDING - 1):
        recorder.record(histogram, 1.0, {})
    assert len(recorder._pending) == MAX_PENDING - 1
    recorder.record(histogram, 1.0, {})
    assert not recorder._pending
    export.close()
