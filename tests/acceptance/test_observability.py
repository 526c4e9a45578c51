"""A failed tool call is found by its request id in the response, log, recorded errors, metrics and trace."""

import json

import httpx2

from tests.acceptance.conftest import serving
from tests.support.collector import Collector

AGENT = '''
from agents import Agent, function_tool

@function_tool(failure_error_function=None)
def look(what: str) -> str:
    """Look."""
    raise ValueError("canary-of-an-error")

agent = Agent(name="inner", tools=[look])
'''
REQUEST_ID = "req_to_follow"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "canary-of-an-argument"


def test_a_failure_can_be_traced_by_its_request_id(tmp_path, upstream):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "Failing.py").write_text(AGENT)
    with Collector() as collector:
        environment = {
            "OPENAI_BASE_URL": upstream.base_url,
            "OPENAI_API_KEY": "canary-of-a-key",
            "GATEWAY__RUNS__TOOL_ERRORS": "none",
            "GATEWAY__PLUGINS__TRACING__EXPORTER": "otlp",
            "GATEWAY__PLUGINS__TRACING__OTLP_ENDPOINT": collector.url,
        }
        with serving(tmp_path, environment=environment) as server, httpx2.Client(base_url=server.url) as client:
            text = f'call look {{"what": "{CANARY}"}}'
            body = {"model": "Failing", "messages": [{"role": "user", "content": text}]}
            headers = {"x-request-id": REQUEST_ID, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            answer = client.post("/v1/chat/completions", json=body, headers=headers)
            recorded = client.get(f"/admin/agents/errors/{REQUEST_ID}")
            metrics = client.get("/metrics").text
        log = server.text
    assert (answer.status_code, answer.headers["x-request-id"]) == (424, REQUEST_ID)
    assert answer.json()["error"]["code"] == "tool_failed"

    [error] = recorded.json()["errors"]
    assert (error["agent_id"], error["code"]) == ("Failing", "tool_failed")
    assert any("Failing.py:7 look" in place for cause in error["traceback"] for place in cause["stack"])

    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request_id") == REQUEST_ID]
    assert {"agent_id": "Failing", "trace_id": TRACE}.items() <= mine[-1].items()
    assert mine[-1]["status"] == 424
    assert any("the tool look failed" in line["message"] for line in mine)

    assert 'agent_gateway_tool_duration_seconds_count{outcome="error",source="sdk-native",tool="look"} 1.0' in metrics
    assert 'agent_gateway_errors_total{code="tool_failed",stage="tool"} 1.0' in metrics
    assert 'agent_gateway_runs_total{agent="Failing",outcome="error"} 1.0' in metrics

    spans = {span.name: span for span in collector.spans if span.trace_id == TRACE}
    assert spans["POST /v1/chat/completions"].attributes["agent_gateway.request_id"] == REQUEST_ID
    assert spans["POST /v1/chat/completions"].failed
    assert spans["execute_tool look"].failed

    for text in (answer.text, recorded.text, log, metrics, str(collector.bodies)):
        assert "canary" not in text
