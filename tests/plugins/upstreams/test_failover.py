"""Failover between upstreams, and substitutes for OpenAI's hosted tools."""

import socket
import time

import pytest
from agents import Agent, ModelSettings, WebSearchTool, function_tool
from attrs import evolve

from gateway_core import ConfigError, hookimpl
from gateway_core.testing import gateway_in_memory
from tests.support.upstream import FakeUpstream, scripted

BODY = {"model": "X", "messages": [{"role": "user", "content": "say: hello"}]}


def always(text):
    """Return a server that always behaves in the same way."""
    return lambda request: scripted(evolve(request, body={**request.body, "messages": [_said(text)]}))


def _said(text):
    return {"role": "user", "content": text}


def config(first, second, **more):
    """Return a configuration in which `first` falls back to `second`."""
    return {
        "plugins": {
            "upstreams": {
                "default": "first",
                "first": {"base_url": first, "fallback": "second", **more},
                "second": {"base_url": second, "default_model": "reserve", "max_retries": 0},
            }
        }
    }


def facts(g, name="first"):
    return g.gateway.hooks.describe()["upstreams"]["upstreams"][name]


async def text_of(g, stream):
    if not stream:
        answer = await g.openai.chat.completions.create(**BODY)
        return answer.choices[0].message.content
    chunks = [c async for c in await g.openai.chat.completions.create(**BODY, stream=True)]
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


@pytest.mark.parametrize(
    ("behavior", "stream", "kind", "cooldown"),
    [
        ("fail 500", True, "5xx", False),
        ("fail 500", False, "5xx", False),
        ("fail 503", True, "5xx", True),
        ("fail 503", False, "5xx", True),
        ("fail 429 7", True, "429", True),
        ("fail 408", False, "4xx", False),
        ("garbage", True, "stream", False),
        ("noend 0", True, "stream", False),
    ],
)
async def test_a_failure_before_any_output_fails_over(behavior, stream, kind, cooldown):
    with FakeUpstream(always(behavior)) as first, FakeUpstream() as second:
        async with gateway_in_memory({"X": Agent(name="x")}, config=config(first.base_url, second.base_url)) as g:
            first.reset()
            second.reset()
            assert await text_of(g, stream) == "hello"
            # There is one attempt: a failover is better than a retry.
            assert [record.request.path for record in first.records] == ["/v1/chat/completions"]
            assert [record.body["model"] for record in second.records] == ["reserve"]
            state = facts(g)
            assert (state["calls"], state["failed"], state["failed_over"]) == (1, {kind: 1}, 1)
            assert state["resting"] is cooldown
            await text_of(g, stream)
            assert len(first.records) == (1 if cooldown else 2)


@pytest.mark.parametrize("behavior", ["error-in-200", "rst 5", "cut 5", "noend 5"])
async def test_a_failure_after_output_does_not_fail_over(behavior):
    with FakeUpstream(always(behavior)) as first, FakeUpstream() as second:
        async with gateway_in_memory({"X": Agent(name="x")}, config=config(first.base_url, second.base_url)) as g:
            second.reset()
            answer = await g.http.post("/v1/chat/completions", json={**BODY, "stream": True})
            assert answer.status_code == 200
            assert '"code":"upstream_' in answer.text.replace(" ", "")
            assert "[DONE]" not in answer.text
            assert second.records == []


@pytest.mark.parametrize("behavior", ["fail 400", "fail 401", "fail 404"])
async def test_request_errors_do_not_fail_over(behavior):
    with FakeUpstream(always(behavior)) as first, FakeUpstream() as second:
        async with gateway_in_memory({"X": Agent(name="x")}, config=config(first.base_url, second.base_url)) as g:
            second.reset()
            assert (await g.http.post("/v1/chat/completions", json=BODY)).status_code >= 400
            assert second.records == []


async def test_if_both_upstreams_fail_the_last_failure_is_reported():
    with FakeUpstream(always("fail 500")) as first, FakeUpstream(always("fail 429 7")) as second:
        async with gateway_in_memory({"X": Agent(name="x")}, config=config(first.base_url, second.base_url)) as g:
            answer = await g.http.post("/v1/chat/completions", json=BODY)
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unreachable_upstream_costs_its_connect_timeout_once(stream):
    with socket.socket() as silent, FakeUpstream() as second:
        # The backlog is full: further connections are neither accepted nor refused.
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            configured = config(
                f"http://127.0.0.1:{port}/v1", second.base_url, connect_timeout=2, first_byte_timeout=30
            )
            async with gateway_in_memory({"X": Agent(name="x")}, config=configured) as g:
                began = time.monotonic()
                assert await text_of(g, stream) == "hello"
                assert time.monotonic() - began < 30
                assert facts(g)["resting"] is True
                calls = facts(g)["calls"]
                assert await text_of(g, stream) == "hello"
                assert facts(g)["calls"] == calls
                assert facts(g)["failed_over"] == 2


async def test_a_refused_connection_is_not_a_timeout():
    with socket.socket() as closed, FakeUpstream() as second:
        closed.bind(("127.0.0.1", 0))
        configured = config(f"http://127.0.0.1:{closed.getsockname()[1]}/v1", second.base_url)
        async with gateway_in_memory({"X": Agent(name="x")}, config=configured) as g:
            assert await text_of(g, True) == "hello"
            assert (facts(g)["failed"], facts(g)["problem"]) == ({"connection": 1}, "APIConnectionError")


async def test_an_upstream_that_does_not_start_a_stream_fails_over():
    with FakeUpstream(always("hang")) as first, FakeUpstream() as second:
        configured = config(first.base_url, second.base_url, first_byte_timeout=2)
        async with gateway_in_memory({"X": Agent(name="x")}, config=configured) as g:
            assert await text_of(g, True) == "hello"
            assert facts(g)["failed"] == {"timeout": 1}


async def test_a_failover_keeps_the_model_name_if_the_fallback_has_it():
    with FakeUpstream(always("fail 500"), models=["gpt-x"]) as first, FakeUpstream(models=["gpt-x", "y"]) as second:
        async with gateway_in_memory(
            {"X": Agent(name="x", model="gpt-x")}, config=config(first.base_url, second.base_url)
        ) as g:
            second.reset()
            await text_of(g, True)
            assert [record.body["model"] for record in second.records] == ["gpt-x"]


async def test_if_all_circuit_breakers_are_open_all_upstreams_are_tried():
    with FakeUpstream(always("fail 503")) as first, FakeUpstream(always("fail 503")) as second:
        async with gateway_in_memory({"X": Agent(name="x")}, config=config(first.base_url, second.base_url)) as g:
            second_table = {"first": first, "second": second}
            for _ in range(2):
                assert (await g.http.post("/v1/chat/completions", json=BODY)).status_code == 502
            assert all(len(u.records) >= 2 for u in second_table.values())


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"a": {"base_url": "http://a", "fallback": "c"}}, "unknown upstream 'c'"),
        ({"a": {"base_url": "http://a", "fallback": "a"}}, "cycle"),
        (
            {"a": {"base_url": "http://a", "fallback": "b"}, "b": {"base_url": "http://b", "fallback": "a"}},
            "cycle",
        ),
        ({"a": {"base_url": "http://a", "substitutes": {"websearch": "x"}}}, "unknown hosted tool 'websearch'"),
    ],
)
async def test_invalid_references_are_rejected_at_startup(tables, message):
    with pytest.raises(ConfigError, match=message):
        async with gateway_in_memory({}, config={"plugins": {"upstreams": tables}}):
            pass


@function_tool(name_override="search__web")
async def own_search(query: str) -> str:
    """Search the web."""
    return f"found {query}"


class Offering:
    def __init__(self, *_):
        pass

    @hookimpl
    def offer_tools(self):
        return [own_search]


def searching(**more):
    return Agent(name="x", tools=[WebSearchTool()], **more)


async def test_a_gateway_tool_replaces_a_hosted_tool():
    body = {"model": "X", "messages": [_said('call search__web {"query": "cats"}')]}
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "substitutes": {"web_search": "search/web"}}
        async with gateway_in_memory(
            {"X": searching(), "Own": Agent(name="y", tools=[])},
            config={"plugins": {"upstreams": {"fake": settings}}},
            plugins={"offering": Offering},
        ) as g:
            answer = await g.http.post("/v1/chat/completions", json=body)
            assert answer.json()["choices"][0]["message"]["content"] == "tool said: found cats"
            sent = [record.body for record in upstream.records if record.body]
            assert [[tool["function"]["name"] for tool in each["tools"]] for each in sent] == [["search__web"]] * 2
            facts = g.gateway.hooks.describe()["upstreams"]["upstreams"]["fake"]
            assert facts["dropped_tools"] == {}
            # Only agents with the hosted tool get the substitute.
            tools = (await g.http.get("/admin/tools")).json()["tools"]
            assert [tool["agents"] for tool in tools if tool["name"] == "search/web"] == [["X"]]


async def test_only_an_upstream_with_a_substitute_gets_it():
    with FakeUpstream() as local, FakeUpstream() as openai:
        upstreams = {
            "default": "openai",
            "openai": {"base_url": openai.base_url, "api": "responses", "default_model": "gpt"},
            "local": {"base_url": local.base_url, "default_model": "m", "substitutes": {"web_search": "search/web"}},
        }
        async with gateway_in_memory(
            {"X": searching(), "Y": searching(model="local/m")},
            config={"plugins": {"upstreams": upstreams}},
            plugins={"offering": Offering},
        ) as g:
            for model in "XY":
                assert (await g.http.post("/v1/chat/completions", json={**BODY, "model": model})).status_code == 200
            [hosted] = [r.body["tools"] for r in openai.records if r.body]
            assert [tool["type"] for tool in hosted] == ["web_search"]
            [own] = [r.body["tools"] for r in local.records if r.body]
            assert [tool["function"]["name"] for tool in own] == ["search__web"]


async def test_a_tool_choice_of_the_hosted_tool_selects_its_substitute():
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "substitutes": {"web_search": "search/web"}}
        chosen = ModelSettings(tool_choice="web_search")
        async with gateway_in_memory(
            {"X": searching(model_settings=chosen), "Y": Agent(name="y", tools=[], model_settings=chosen)},
            config={"plugins": {"upstreams": {"fake": settings}}},
            plugins={"offering": Offering},
        ) as g:
            await g.http.post("/v1/chat/completions", json=BODY)
            [sent] = [record.body for record in upstream.records if record.body]
            assert sent["tool_choice"] == {"type": "function", "function": {"name": "search__web"}}


async def test_without_the_gateway_tool_the_hosted_one_is_dropped_and_reported():
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "substitutes": {"web_search": "no/such"}}
        async with gateway_in_memory({"X": searching()}, config={"plugins": {"upstreams": {"fake": settings}}}) as g:
            assert (await g.http.post("/v1/chat/completions", json=BODY)).status_code == 200
            facts = g.gateway.hooks.describe()["upstreams"]["upstreams"]["fake"]
            assert facts["dropped_tools"] == {"X": ["web_search"]}
