"""Clients with default settings retry neither after a tool has started, nor what the gateway has retried itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.acceptance.conftest import Server, serving
from tests.support.upstream import Answer, Call, FakeUpstream, Reply, Request, error_reply

AGENT = '''
from agents import Agent, function_tool


@function_tool(failure_error_function=None)
def charge(then: str) -> str:
    """Charge a card."""
    with open("charges", "a") as file:
        file.write("x")
    if then == "raise":
        raise ValueError("no")
    return "charged"


agent = Agent(name="shop", model="fake/m", tools=[charge])
'''


def model(request: Request) -> Answer | Reply:
    """Calls the tool, then does what the message says."""
    then = request.user_text
    if then.startswith("at once "):
        return error_reply(int(then.removeprefix("at once ")), retry_after="0")
    if not request.tool_results:
        return Answer(calls=(Call("charge", json.dumps({"then": then})),))
    return error_reply(int(then), retry_after="0")


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Iterator[tuple[Server, Path, FakeUpstream]]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "agents").mkdir()
    (folder / "agents" / "Shop.py").write_text(AGENT)
    with FakeUpstream(model) as upstream:
        (folder / "gateway.toml").write_text(f'[plugins.upstreams.fake]\nbase_url = "{upstream.base_url}"\n')
        with serving(folder) as server:
            yield server, folder / "charges", upstream


def official_client(server: Server) -> openai.OpenAI:
    """The official client with its default number of retries."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any")


def create(client: openai.OpenAI, api: str, text: str, *, stream: bool):
    if api == "chat":
        return client.chat.completions.create(model="Shop", messages=[{"role": "user", "content": text}], stream=stream)
    return client.responses.create(model="Shop", input=text, stream=stream)


@pytest.mark.parametrize("then", ["raise", "500", "429", "400"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_failure_after_a_tool_started_is_not_retried(shop, api, then):
    server, charges, _ = shop
    charges.unlink(missing_ok=True)
    with official_client(server) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            create(client, api, then, stream=False)
        assert charges.read_text() == "x"
        assert caught.value.status_code == (400 if then == "400" else 424)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in caught.value.response.headers


@pytest.mark.parametrize("then", ["raise", "500", "429"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_stream_starts_when_a_tool_starts(shop, api, then):
    server, charges, _ = shop
    charges.unlink(missing_ok=True)
    with official_client(server) as client:
        events = create(client, api, then, stream=True)  # raises for any status other than 200
        if api == "chat":
            with pytest.raises(openai.APIError):
                list(events)
        else:
            assert [event.type for event in events][-1] == "response.failed"
        assert charges.read_text() == "x"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_gateway_retried_is_not_retried_by_the_client(shop, stream):
    server, _, upstream = shop
    upstream.reset()
    with official_client(server) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            create(client, "chat", "at once 500", stream=stream)
        assert caught.value.response.headers["x-should-retry"] == "false"
    calls = [record for record in upstream.records if record.request.method == "POST"]
    assert len(calls) == 3, "the attempts of the gateway"
