"""Model name resolution, detection of upstreams, stream parsing, and health checks."""

import asyncio
import os

import httpx2
import openai
import pytest
from agents import Agent, WebSearchTool, function_tool
from gateway_plugins.upstreams import discovery, health
from gateway_plugins.upstreams.chat_api import ChatEndpoint, ChunkStream
from gateway_plugins.upstreams.client import UpstreamClient
from gateway_plugins.upstreams.discovery import discover
from gateway_plugins.upstreams.routing import Router
from gateway_plugins.upstreams.settings import Upstream
from openai.types.chat import ChatCompletionChunk

from gateway_core.testing import gateway_in_memory
from tests.support.upstream import FakeUpstream, Reply

UPSTREAMS = {
    "openai": Upstream("http://openai/v1", default_model="gpt-default"),
    "ollama": Upstream("http://ollama/v1", models={"gpt-4.1": "llama3.2", "openai/fast": "qwen"}),
    "silent": Upstream("http://silent/v1"),
}
LISTED = {"openai": ["gpt-default", "gpt-5"], "ollama": ["llama3.2:latest", "library/llama3.2"]}


@pytest.mark.parametrize(
    ("name", "route"),
    [
        (None, ("openai", "gpt-default", False)),
        ("gpt-4.1", ("ollama", "llama3.2", True)),
        ("openai/fast", ("ollama", "qwen", True)),
        ("ollama/library/llama3.2", ("ollama", "library/llama3.2", True)),
        ("silent/anything/at/all", ("silent", "anything/at/all", True)),
        ("llama3.2", ("ollama", "llama3.2:latest", True)),
        ("library/llama3.2", ("ollama", "library/llama3.2", True)),
        ("gpt-5", ("openai", "gpt-5", True)),
        ("unknown-model", ("openai", "gpt-default", False)),
        ("nowhere/model", ("openai", "gpt-default", False)),
        ("ollama/", ("openai", "gpt-default", False)),
    ],
)
def test_a_name_is_resolved_by_precedence(name, route):
    found = Router(UPSTREAMS, "openai", LISTED).route(name)
    assert (found.upstream, found.model, found.found) == route


def test_an_upstream_without_a_model_list_gets_the_name_unchanged():
    route = Router(UPSTREAMS, "silent", {}).route("some-model")
    assert (route.upstream, route.model, route.found) == ("silent", "some-model", True)


def test_without_a_default_model_the_first_listed_one_is_used():
    assert Router(UPSTREAMS, "ollama", LISTED).route(None).model == "llama3.2:latest"


async def test_the_environment_comes_before_local_servers(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    choice = await discover({}, probe=True, servers={})
    assert choice.reason == "OPENAI_API_KEY is set"
    assert choice.upstreams["openai"].api == "responses"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    upstream = (await discover({}, probe=True, servers={})).upstreams["openai"]
    assert (upstream.base_url, upstream.api, upstream.api_key.reveal()) == ("http://elsewhere/v1", "chat", "k")


async def test_a_local_server_is_detected_and_a_configured_one_takes_precedence(monkeypatch):
    monkeypatch.setattr(discovery, "PROBE_SECONDS", 30.0)
    with FakeUpstream() as upstream:
        choice = await discover({}, probe=True, servers={"none": "http://127.0.0.1:9/v1", "ollama": upstream.base_url})
        assert list(choice.upstreams) == ["ollama"]
        assert (await discover({}, probe=False, servers={"ollama": upstream.base_url})).upstreams == {}
        configured = await discover(UPSTREAMS, probe=True, servers={"ollama": upstream.base_url})
        assert configured.upstreams is UPSTREAMS


async def stream(raw: bytes | list[bytes], **settings):
    """Return the chunks that the client reads from a server that sends these bytes."""
    parts = [raw] if isinstance(raw, bytes) else raw
    reply = Reply(parts, headers={"content-type": "text/event-stream"})
    with FakeUpstream(lambda request: reply) as upstream:
        client = UpstreamClient(Upstream(upstream.base_url, max_retries=0, **settings))
        async with client:
            chunks = await ChatEndpoint(client).create(model="m", messages=[], stream=True)
            return [chunk async for chunk in chunks]


async def pieces(parts: list[bytes], client):
    """Return the chunks that the client reads from a body that arrives in exactly these pieces."""

    async def body():
        for part in parts:
            yield part

    response = httpx2.Response(200, content=body(), request=httpx2.Request("POST", "http://upstream/v1"))
    return [chunk async for chunk in ChunkStream(cast_to=ChatCompletionChunk, response=response, client=client)]


HEAD = '{"id":"x","created":1,"model":"m","object":"chat.completion.chunk","choices":[{"index":0,'
TEXT = HEAD + '"delta":{"content":"hi"},"finish_reason":null}]}'
STOP = HEAD + '"delta":{},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    "raw",
    [
        f"data: {TEXT}\n\ndata: {STOP}\n\ndata: [DONE]\n\n",
        f"data:{TEXT}\n\ndata:{STOP}\n\n",
        f"data: {TEXT}\r\n\r\ndata: {STOP}\r\n\r\ndata: [DONE]\r\n\r\n",
        f": comment\n\nevent: x\nid: 1\ndata: {TEXT}\n\n: more\n\ndata: {STOP}\n\n",
        f"data: {TEXT}\n\ndata: {STOP}",
        f"data: {TEXT.replace(',', ',' + chr(10) + 'data: ', 1)}\n\ndata: {STOP}\n\n",
        'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: {"choices":[{"finish_reason":"stop"}]}\n\n',
    ],
    ids=["openai", "no space", "crlf", "comments", "no last line", "two data lines", "sparse"],
)
async def test_streams_of_various_servers_are_parsed(raw):
    whole = await stream(raw.encode())
    assert [choice.delta.content for chunk in whole for choice in chunk.choices if choice.delta][:1] == ["hi"]
    async with UpstreamClient(Upstream("http://upstream/v1")) as client:
        assert await pieces([bytes([byte]) for byte in raw.encode()], client) == whole
        for cut in range(1, len(raw)):
            assert await pieces([raw[:cut].encode(), raw[cut:].encode()], client) == whole, f"cut after {raw[:cut]!r}"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (f"data: {TEXT}\n\n", "was interrupted"),
        ("", "was interrupted"),
        ("data: {{{\n\n", "malformed JSON"),
        ("data: [1]\n\n", "invalid chunk"),
        ('data: {"error": {"message": "secret of the server"}}\n\n', "reported an error"),
        ("data: " + "x" * (5 * 1024 * 1024), "longer than"),
    ],
    ids=["no end", "empty", "garbage", "list", "error", "long line"],
)
async def test_a_malformed_stream_is_an_error(raw, message):
    with pytest.raises(openai.APIError, match=message) as caught:
        await stream(raw.encode())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("text", ["garbage", "badutf8", "error-in-200"])
async def test_an_invalid_response_is_an_upstream_error(api, text):
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "api": api, "max_retries": 0}
        config = {"plugins": {"upstreams": {"fake": settings}}}
        async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
            with pytest.raises(openai.APIStatusError) as caught:
                await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": text}])
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")


async def test_a_stream_that_does_not_start_or_stalls_times_out():
    async def ask(text, **settings):
        with FakeUpstream() as upstream:
            async with UpstreamClient(Upstream(upstream.base_url, max_retries=0, **settings)) as client:
                messages = [{"role": "user", "content": text}]
                chunks = await ChatEndpoint(client).create(model="m", messages=messages, stream=True)
                return [chunk async for chunk in chunks]

    for text, settings in [("hang", {"first_byte_timeout": 0.2}), ("hang-after 3", {"idle_timeout": 0.2})]:
        with pytest.raises(openai.APITimeoutError):
            await ask(text, **settings)


async def test_calls_are_retried_as_configured():
    with FakeUpstream(lambda request: Reply([b"{}"], status=500)) as upstream:
        async with UpstreamClient(Upstream(upstream.base_url, max_retries=1)) as client:
            with pytest.raises(openai.InternalServerError):
                await ChatEndpoint(client).create(model="m", messages=[])
        assert len(upstream.records) == 2


async def test_an_agents_own_client_uses_the_upstream_and_the_environment_is_restored(tmp_path):
    (tmp_path / "Own.py").write_text(
        "from agents import Agent, OpenAIChatCompletionsModel\nfrom openai import AsyncOpenAI\n"
        "agent = Agent(name='x', model=OpenAIChatCompletionsModel('own', AsyncOpenAI()))\n"
    )
    with FakeUpstream() as upstream:
        config = {"plugins": {"upstreams": {"fake": {"base_url": upstream.base_url}}}}
        async with gateway_in_memory(folder=tmp_path, config=config) as g:
            answer = await g.openai.chat.completions.create(
                model="Own", messages=[{"role": "user", "content": "say: mine"}]
            )
            assert answer.choices[0].message.content == "mine"
            await g.gateway.catalog.agents["Own"].runnable.agent.model._client.close()
    assert "OPENAI_BASE_URL" not in os.environ


@pytest.mark.parametrize(("policy", "status"), [("drop", 200), ("refuse", 502)])
async def test_hosted_tools_are_dropped_or_rejected(policy, status):
    agent = Agent(name="x", tools=[WebSearchTool()])
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "hosted_tools": policy}
        async with gateway_in_memory({"X": agent}, config={"plugins": {"upstreams": {"fake": settings}}}) as g:
            answer = await g.http.post(
                "/v1/chat/completions", json={"model": "X", "messages": [{"role": "user", "content": "say: hi"}]}
            )
            assert answer.status_code == status
            facts = g.gateway.hooks.describe()["upstreams"]["upstreams"]["fake"]
            assert facts["dropped_tools"] == ({"X": ["web_search"]} if policy == "drop" else {})


@pytest.mark.parametrize("beside", [False, True])
async def test_hosted_tools_stay_where_the_upstream_runs_them(beside):
    """Alone, and together with a function tool."""

    @function_tool
    def look() -> str:
        """Look."""
        return ""

    agent = Agent(name="x", tools=[*([look] if beside else []), WebSearchTool()])
    with FakeUpstream() as upstream:
        settings = {"base_url": upstream.base_url, "api": "responses"}
        async with gateway_in_memory({"X": agent}, config={"plugins": {"upstreams": {"fake": settings}}}) as g:
            await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "say: hi"}])
    sent = [tool["type"] for tool in upstream.records[-1].body["tools"]]
    assert sent == (["function", "web_search"] if beside else ["web_search"])


async def test_a_hundred_concurrent_calls_share_the_pool():
    with FakeUpstream() as upstream:
        async with UpstreamClient(Upstream(upstream.base_url)) as client:
            endpoint = ChatEndpoint(client)

            async def one(number):
                messages = [{"role": "user", "content": f"say: {number}"}]
                return (await endpoint.create(model="m", messages=messages)).choices[0].message.content

            assert await asyncio.gather(*map(one, range(100))) == [str(number) for number in range(100)]


async def test_health_checks_detect_upstreams_that_start_and_stop(monkeypatch):
    monkeypatch.setattr(health, "UNREACHABLE_TTL_SECONDS", 0.0)
    monkeypatch.setattr(health, "REACHABLE_TTL_SECONDS", 0.0)
    with FakeUpstream() as first:
        port, base_url = first.port, first.base_url
    upstream = {"base_url": base_url, "default_model": "m", "max_retries": 0}
    config = {"plugins": {"upstreams": {"late": upstream}}}

    async def until(g, status):
        while (answer := await g.http.get("/readyz")).status_code != status:
            await asyncio.sleep(0.01)  # bounded by the test's own time limit
        return answer.text

    async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
        assert await until(g, 503) == "not ready\ncatalog: ok\nupstream: failed\n"
        [facts] = (await g.http.get("/admin/upstreams")).json()["upstreams"].values()
        assert (facts["reachable"], facts["models"]) == (False, [])
        assert facts["problem"] in ("APIConnectionError", "APITimeoutError")
        with FakeUpstream(port=port):
            assert await until(g, 200) == "ready\ncatalog: ok\nupstream: ok\n"
            [facts] = (await g.http.get("/admin/upstreams")).json()["upstreams"].values()
            assert facts["reachable"] is True
            assert facts["models"]
        await until(g, 503)


@pytest.mark.parametrize(("status", "reachable"), [(401, True), (404, True), (500, False)])
async def test_an_error_response_below_500_counts_as_reachable(status, reachable):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}" % status)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        config = {"plugins": {"upstreams": {"fake": {"base_url": base_url, "default_model": "m"}}}}
        async with gateway_in_memory({"X": Agent(name="x")}, config=config) as g:
            assert (await g.http.get("/readyz")).status_code == (200 if reachable else 503)
            [facts] = (await g.http.get("/admin/upstreams")).json()["upstreams"].values()
            assert (facts["reachable"], facts["problem"]) == (reachable, f"HTTP {status}")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("length", "length"),
        ("filter", "content_filter"),
        ("say: hi", "stop"),
        ("call look {} then call look {}", "stop"),
    ],
)
async def test_the_client_gets_the_finish_reason_of_the_last_response(text, finish, stream):
    @function_tool
    def look() -> str:
        """Look."""
        return "seen"

    with FakeUpstream() as upstream:
        config = {"plugins": {"upstreams": {"fake": {"base_url": upstream.base_url}}}}
        async with gateway_in_memory({"X": Agent(name="x", tools=[look])}, config=config) as g:
            messages = [{"role": "user", "content": text}]
            answer = await g.openai.chat.completions.create(model="X", messages=messages, stream=stream)
            if stream:
                reasons = [choice.finish_reason async for chunk in answer for choice in chunk.choices]
                assert [reason for reason in reasons if reason] == [finish]
            else:
                assert answer.choices[0].finish_reason == finish
            response = await g.openai.responses.create(model="X", input=text)
            reason = response.incomplete_details and response.incomplete_details.reason
            assert (response.status, reason) == {
                "length": ("incomplete", "max_output_tokens"),
                "content_filter": ("incomplete", "content_filter"),
                "stop": ("completed", None),
            }[finish]


async def test_the_finish_reason_of_a_nested_agent_is_not_reported():
    inner = Agent(name="inner")
    outer = Agent(name="outer", tools=[inner.as_tool("ask", "Ask.")])
    with FakeUpstream() as upstream:
        config = {"plugins": {"upstreams": {"fake": {"base_url": upstream.base_url}}}}
        async with gateway_in_memory({"X": outer}, config=config) as g:
            messages = [{"role": "user", "content": 'call ask {"input": "length"}'}]
            answer = await g.openai.chat.completions.create(model="X", messages=messages)
            assert answer.choices[0].finish_reason == "stop"
