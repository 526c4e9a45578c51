"""The queries of the dashboard and the alert rules use only exported metrics and labels."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from agents import Agent, function_tool
from prometheus_client.parser import text_string_to_metric_families

from gateway_core.testing import gateway_in_memory
from tests.support.upstream import FakeUpstream

FOLDER = Path(__file__).parents[2] / "docs" / "observability"
_OF_PROMETHEUS = {"instance", "job", "le"}
_NAME = r"(?:agent_gateway|gen_ai|http_server)_\w+"


def queries() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    chosen = [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    alerts = [
        rule["expr"]
        for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    return [*shown, *chosen, *alerts]


async def exported() -> dict[str, set[str]]:
    """Returns the labels of each series that a gateway exports after a variety of requests."""

    @function_tool
    async def look() -> str:
        """Look."""
        return "seen"

    def body(text: str, **more: Any) -> dict[str, Any]:
        return {"model": "X", "messages": [{"role": "user", "content": text}], **more}

    with FakeUpstream() as upstream:
        up = {"base_url": upstream.base_url, "default_model": "m", "max_retries": 0}
        config = {
            "http": {"sse_keep_alive": 0.01},
            "plugins": {
                "upstreams": {"up": up},
                "ui_tasks": {"local": True},
                "folder_discovery": {"enabled": False},
                "hot_reload": {"enabled": True},
                "mcp_tools": {"start_timeout": 0.1, "gone": {"kind": "http", "url": "http://127.0.0.1:9/mcp"}},
            },
        }
        agents = {"X": Agent(name="x", tools=[look]), "Broken": "no agent"}
        async with gateway_in_memory(agents, config=config) as g:
            url = "/v1/chat/completions"
            for text in ("call look {}", "fail 500"):
                await g.http.post(url, json=body(text))
            await g.http.post(url, json=body("a title"), headers={"x-agent-gateway-task": "title"})
            async with g.http.stream("POST", url, json=body("say: some words", stream=True)) as answer:
                await answer.aread()
            async with g.http.stream("POST", url, json=body("hang-after 1", stream=True)) as answer:
                async for piece in answer.aiter_bytes():
                    if b"keep-alive" in piece:
                        break
            text = (await g.http.get("/metrics")).text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    return asyncio.run(exported())


def test_there_are_queries():
    assert len(queries()) > 30


@pytest.mark.parametrize("query", queries())
def test_queries_use_exported_metrics_and_labels(query, series):
    names = re.findall(_NAME, re.sub(r"\bby \([^)]*\)|\{[^}]*\}", "", query.replace("label_values(", "(")))
    names = [name for name in names if name not in set().union(*series.values())]
    assert names or query.startswith("up{")
    assert not [name for name in names if name not in series]
    labels = set(re.findall(r"(\w+)=~?\"", query))
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        labels |= {label.strip() for label in group.split(",")}
    known = set().union(*(series[name] for name in names)) | _OF_PROMETHEUS
    assert labels <= known
    for opening, closing in ("()", "[]", "{}"):
        assert query.count(opening) == query.count(closing)


def test_every_metric_is_on_the_dashboard_or_in_an_alert(series):
    asked = " ".join(queries())
    families = {re.sub(r"_(bucket|count|sum|total|created)$", "", name) for name in series if re.fullmatch(_NAME, name)}
    assert not [family for family in families if family not in asked]


def test_every_metric_is_in_the_documentation(series):
    page = "".join((FOLDER.parent / "plugins" / f"{name}.md").read_text() for name in ("metrics", "loop_monitor"))
    documented = {name.replace(".", "_") for name in re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)}
    families = {
        re.sub(r"_(bucket|count|sum|total|created)$", "", name).removesuffix("_seconds")
        for name in series
        if re.fullmatch(_NAME, name)
    }
    assert families <= documented
    assert {name for name in documented if re.fullmatch(_NAME, name)} <= families
