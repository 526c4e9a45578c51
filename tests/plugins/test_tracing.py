"""Spans of a request form one trace with its client and upstream, and contain no user content by default."""

import asyncio
import logging
import sys

import pytest
from agents import Agent, GuardrailFunctionOutput, InputGuardrail, Runner, function_tool
from agents.mcp import MCPServerStdio
from gateway_plugins.tracing import Settings, Tracing
from opentelemetry.sdk.trace import TracerProvider

from gateway_core import ConfigError, log_context, trace_headers
from gateway_core.testing import call, gateway_in_memory, script
from tests.support.collector import Collector, SentSpan
from tests.support.interpreter import run_python
from tests.support.upstream import FakeUpstream

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def body(text: str = "canary-of-a-prompt", **more: object) -> dict:
    return {"model": "X", "messages": [{"role": "user", "content": text}], **more}


def tables(collector: Collector, upstream: FakeUpstream | None = None, **more: object) -> dict:
    plugins: dict = {"tracing": {"exporter": "otlp", "otlp_endpoint": collector.url, **more}}
    if upstream is not None:
        plugins["upstreams"] = {"up": {"base_url": upstream.base_url, "default_model": "m", "max_retries": 0}}
    return {"plugins": plugins}


def tree(spans: list[SentSpan]) -> set[tuple[str, str | None]]:
    """Returns the name of each span with that of its parent."""
    names = {span.span_id: span.name for span in spans}
    return {(span.name, names.get(span.parent_id)) for span in spans}


@function_tool
async def look(what: str) -> str:
    """Look."""
    return "canary-of-a-result"


def watchful() -> Agent:
    async def harmless(context: object, agent: object, input: object) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    second = Agent(name="Second", model="special", tools=[look])
    return Agent(name="First", handoffs=[second], input_guardrails=[InputGuardrail(harmless)])


async def test_a_request_is_one_tree_of_spans_in_the_clients_trace():
    with Collector() as collector, FakeUpstream() as upstream:
        async with gateway_in_memory({"X": watchful()}, config=tables(collector, upstream)) as g:
            text = 'call transfer_to_second {} then call look {"what": "canary-of-an-argument"}'
            headers = {"traceparent": PARENT, "x-request-id": "r1"}
            assert (await g.http.post("/v1/chat/completions", json=body(text), headers=headers)).is_success
    assert collector.paths == {"/v1/traces"}
    request, run = "POST /v1/chat/completions", "invoke_workflow Agent workflow"
    assert tree(collector.spans) == {
        (request, None),
        (run, request),
        ("invoke_agent First", run),
        ("guardrail harmless", "invoke_agent First"),
        ("chat m", "invoke_agent First"),
        ("handoff Second", "invoke_agent First"),
        ("invoke_agent Second", run),
        ("chat m", "invoke_agent Second"),
        ("execute_tool look", "invoke_agent Second"),
    }
    by_name = {span.name: span for span in collector.spans}
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert by_name[request].parent_id == "b7ad6b7169203331"
    assert by_name[request].attributes["http.response.status_code"] == 200
    assert by_name[run].attributes["agent_gateway.request_id"] == "r1"
    assert by_name[run].attributes["agent_gateway.agent_id"] == "X"
    assert by_name["execute_tool look"].attributes["gen_ai.tool.name"] == "look"
    assert by_name["chat m"].attributes["gen_ai.usage.input_tokens"] > 0
    assert not any(b"canary" in sent for sent in collector.bodies)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_upstream_receives_the_calling_span(stream):
    with Collector() as collector, FakeUpstream() as upstream:
        async with gateway_in_memory({"X": Agent(name="x")}, config=tables(collector, upstream)) as g:
            upstream.reset()
            await g.http.post("/v1/chat/completions", json=body(stream=stream), headers={"traceparent": PARENT})
            [record] = upstream.wait_for_records(1)
    [chat] = [span for span in collector.spans if span.name.startswith("chat")]
    assert record.request.headers["traceparent"] == f"00-{TRACE}-{chat.span_id}-01"


async def test_without_tracing_the_clients_trace_context_is_forwarded():
    with FakeUpstream() as upstream:
        config = {"plugins": {"upstreams": {"up": {"base_url": upstream.base_url, "default_model": "m"}}}}
        async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
            upstream.reset()
            for sent in (PARENT, "00-nonsense", None):
                headers = {"traceparent": sent} if sent else {}
                await g.http.post("/v1/chat/completions", json=body(), headers=headers)
            records = upstream.wait_for_records(3)
    assert [record.request.headers.get("traceparent") for record in records] == [PARENT, None, None]


async def test_a_new_trace_appears_in_logs_and_tools():
    seen: list[dict] = []

    @function_tool
    async def tell() -> str:
        """Tell."""
        seen.append({**trace_headers(), **log_context()})
        return "x"

    with Collector() as collector:
        agent = Agent(name="x", tools=[tell], model=script(call("tell"), "a"))
        async with gateway_in_memory({"X": agent}, config=tables(collector)) as g:
            await g.http.post("/v1/chat/completions", json=body())
    [tool] = [span for span in collector.spans if span.name == "execute_tool tell"]
    assert seen[0]["traceparent"].startswith(f"00-{tool.trace_id}-{tool.span_id}-")
    assert seen[0]["trace_id"] == tool.trace_id


async def test_content_is_exported_with_a_warning_if_enabled(caplog):
    with Collector() as collector, FakeUpstream() as upstream:
        agent = Agent(name="x", tools=[look])
        async with gateway_in_memory({"X": agent}, config=tables(collector, upstream, content=True)) as g:
            text = 'call look {"what": "canary-of-an-argument"}'
            await g.http.post("/v1/chat/completions", json=body(text))
    assert "exported spans contain prompts" in caplog.text
    by_name = {span.name: span.attributes for span in collector.spans}
    assert by_name["execute_tool look"]["gen_ai.tool.call.arguments"] == '{"what": "canary-of-an-argument"}'
    assert by_name["execute_tool look"]["gen_ai.tool.call.result"] == "canary-of-a-result"
    assert "call look" in by_name["chat m"]["gen_ai.input.messages"]
    assert "canary-of-a-result" in by_name["chat m"]["gen_ai.output.messages"]


async def test_failed_spans_have_no_error_message():
    @function_tool
    async def bad(what: str) -> str:
        """Fail."""
        raise ValueError("canary-of-an-error")

    with Collector() as collector, FakeUpstream() as upstream:
        async with gateway_in_memory({"X": Agent(name="x", tools=[bad])}, config=tables(collector, upstream)) as g:
            await g.http.post("/v1/chat/completions", json=body('call bad {"what": "canary"}'))
            await g.http.post("/v1/chat/completions", json=body("fail 500"))
            await g.http.post("/v1/chat/completions", json={"model": "nope", "messages": body()["messages"]})
    failed = [span.name for span in collector.spans if span.failed]
    assert failed.count("execute_tool bad") == 1
    assert failed.count("chat m") == 1
    assert failed.count("POST /v1/chat/completions") == 1  # 502; a 404 is a client error
    assert sorted(s.attributes["http.response.status_code"] for s in collector.spans if s.kind == 2) == [200, 404, 502]
    assert not any(b"canary" in sent for sent in collector.bodies)


async def test_a_disconnect_ends_all_spans():
    with Collector() as collector, FakeUpstream() as upstream:
        async with gateway_in_memory({"X": Agent(name="x")}, config=tables(collector, upstream)) as g:
            tracing = next(p for p in g.gateway.hooks.trace_processors())
            async with g.http.stream("POST", "/v1/chat/completions", json=body("hang-after 1", stream=True)) as answer:
                await anext(answer.aiter_bytes())
            assert not tracing._open
    names = {span.name for span in collector.spans}
    assert {"POST /v1/chat/completions", "invoke_workflow Agent workflow", "invoke_agent x", "chat m"} <= names


async def test_sampling_follows_the_setting_or_the_clients_decision():
    with Collector() as collector:
        agent = Agent(name="x", model=script("a", "a", "a"))
        async with gateway_in_memory({"X": agent}, config=tables(collector, sample_ratio=0)) as g:
            for headers in ({}, {"traceparent": PARENT}, {"traceparent": PARENT[:-1] + "0"}):
                await g.http.post("/v1/chat/completions", json=body(), headers=headers)
    assert len([span for span in collector.spans if span.kind == 2]) == 1


async def test_two_gateways_in_one_process_have_separate_traces():
    with Collector() as one, Collector() as two:
        agents = {"X": Agent(name="x", model=script("a"))}
        async with gateway_in_memory(agents, config=tables(one)) as g, gateway_in_memory({}, config=tables(two)) as h:
            await g.http.post("/v1/chat/completions", json=body())
            await h.http.get("/v1/models")
    assert {span.name for span in one.spans} >= {"POST /v1/chat/completions", "invoke_agent x"}
    assert [span.name for span in two.spans] == ["GET /v1/models"]


async def test_runs_outside_a_request_are_ignored():
    with Collector() as collector:
        async with gateway_in_memory({}, config=tables(collector)):
            await Runner.run(Agent(name="x", model=script("a")), "hi")
    assert not collector.spans


async def test_an_unreachable_collector_does_not_delay_requests(caplog):
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    with Collector(dead=True) as collector:
        agent = Agent(name="x", model=script(*["a"] * 5))
        async with gateway_in_memory({"X": agent}, config=tables(collector)) as g:
            await g.http.post("/v1/chat/completions", json=body())
            assert await asyncio.to_thread(collector.asked.wait, 10)
            # Requests complete while the collector hangs.
            for _ in range(4):
                assert (await g.http.post("/v1/chat/completions", json=body())).is_success
            assert not collector.bodies
            collector.release.set()


async def test_the_oldest_trace_is_ended_beyond_the_limit(monkeypatch):
    from gateway_plugins.tracing import spans

    monkeypatch.setattr(spans, "MAX_OPEN_TRACES", 2)

    class AnyTrace:
        name = "x"

        def __init__(self, trace_id: str) -> None:
            self.trace_id = trace_id

    made = spans.Spans(TracerProvider(shutdown_on_exit=False).get_tracer("test"), content=False)
    with made.request([]):
        for number in range(5):
            made.on_trace_start(AnyTrace(str(number)))
    assert list(made._open) == ["3", "4"]


def test_disabled_tracing_imports_nothing(tmp_path):
    code = (
        "import asyncio, sys; from gateway_core.app import build; from gateway_core.config.settings import load_config;"
        "off = {'plugins': {'metrics': {'enabled': False}, 'upstreams': {'probe': False}}};"
        "app = build(load_config(environ={}, overrides=off));\n"
        "async def main():\n"
        "    async with app.state.gateway: print('opentelemetry.sdk' in sys.modules)\n"
        "asyncio.run(main())"
    )
    assert run_python(code, tmp_path).split() == ["False"]


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_an_invalid_sample_ratio_is_rejected(ratio):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        Tracing(None, Settings(sample_ratio=ratio))


async def test_a_missing_exporter_package_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"agent-gateway\[otlp\]"):
        async with gateway_in_memory({}, config={"plugins": {"tracing": {"exporter": "otlp"}}}):
            pass


async def test_the_console_exporter_prints_spans(capsys):
    agent = Agent(name="x", model=script("a"))
    async with gateway_in_memory({"X": agent}, config={"plugins": {"tracing": {"exporter": "console"}}}) as g:
        await g.http.post("/v1/chat/completions", json=body())
    shown = capsys.readouterr()
    assert '"name": "invoke_agent x"' in shown.err
    assert not shown.out


SERVER = """
from mcp.server.mcpserver import Context, MCPServer

mcp = MCPServer("Traced", log_level="ERROR")


@mcp.tool()
async def which(ctx: Context) -> str:
    meta = ctx.request_context.meta
    return str(meta["traceparent"] if isinstance(meta, dict) else getattr(meta, "traceparent", meta))


mcp.run(transport="stdio")
"""


async def test_an_mcp_server_receives_the_calling_span(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    server = MCPServerStdio({"command": sys.executable, "args": [str(tmp_path / "server.py")]}, name="Traced")
    model = script(call("which"), "done")
    with Collector() as collector:
        agent = Agent(name="x", mcp_servers=[server], model=model)
        async with gateway_in_memory({"X": agent}, config=tables(collector)) as g:
            await g.http.post("/v1/chat/completions", json=body(), headers={"traceparent": PARENT})
    by_name = {span.name: span for span in collector.spans}
    tool = by_name["execute_tool which"]
    assert f"00-{TRACE}-{tool.span_id}-01" in str(model.calls[1].input[-1]["output"])
    assert tool.attributes["agent_gateway.mcp.server"] == "Traced"
    assert by_name["tools/list Traced"].attributes["mcp.method.name"] == "tools/list"
