"""Tests of the real command with third-party clients, in their own languages."""

import asyncio
import contextlib
import functools
import json
import operator
import shutil
import subprocess
from pathlib import Path

import openai
import pytest

from tests.acceptance.conftest import records, upstream
from tests.acceptance.test_client_tools import TASK, server, weather
from tests.acceptance.test_retries import shop

__all__ = ["records", "server", "shop", "upstream"]

HERE = Path(__file__).parent
INSTALL_SECONDS = 120
RUN_SECONDS = 60


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory) -> Path:
    """A folder with the installed Node clients."""
    if not shutil.which("npm"):
        pytest.skip("Node is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "clients.mjs", "retries.mjs"):
        shutil.copy(HERE / name, folder)
    install = ["npm", "install", "--silent", "--no-fund", "--no-audit"]
    if subprocess.run(install, cwd=folder, timeout=INSTALL_SECONDS).returncode != 0:
        pytest.skip("npm cannot install the clients here")
    return folder


def test_javascript_clients(server, upstream, records, node_folder):
    ran = subprocess.run(
        ["node", "clients.mjs", f"{server.url}/v1"],
        cwd=node_folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert {"Plain", "Tools"} <= set(seen["models"])
    assert seen["whole"]["text"] == seen["streamed"]["text"] == "one two three"
    assert seen["whole"]["usage"] == seen["streamed"]["usage"] > 0
    assert seen["tool"]["content"] == "tool said: 5"
    assert not seen["tool"].get("tool_calls"), "the client must not run a call that the gateway ran"
    assert seen["unknown"] == {"isNotFound": True, "code": "model_not_found"}
    assert "closed early" in seen["broken"]["message"]
    assert len(seen["silent"].split()) == 4
    assert seen["aiWhole"] == {"text": "one two three", "usage": seen["whole"]["usage"]}
    assert seen["aiStreamed"] == {"text": "tool said: 5", "calls": 0, "finish": "stop"}
    assert seen["aiUnknown"] == 404
    assert seen["aiResponses"] == {"texts": ["tool said: 5", "one two three", "and four"], "calls": 0, "steps": 1}
    assert seen["clientTools"] == [["tool said: sunny in Rome", 3]] * 4
    left = [record for record in upstream.records if record.request.user_text == "endless"]
    assert len(left) == 2
    for record in left:
        assert record.closed_early.wait(5), "exiting the loop cancels the upstream request"


@pytest.mark.parametrize("stream", [False, True])
def test_an_sdk_agent_with_a_gateway_agent_as_its_model(server, stream):
    from agents import Agent, OpenAIResponsesModel, RunConfig, Runner
    from openai import AsyncOpenAI

    async def ask():
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            agent = Agent(name="outer", model=OpenAIResponsesModel("Tools", client))
            given = agent, 'call add {"a": 2, "b": 3}'
            if not stream:
                return await Runner.run(*given, run_config=RunConfig(tracing_disabled=True))
            result = Runner.run_streamed(*given, run_config=RunConfig(tracing_disabled=True))
            async for _ in result.stream_events():
                pass
            return result

    assert asyncio.run(ask()).final_output == "tool said: 5"


def test_langchain_with_responses(server):
    from langchain_openai import ChatOpenAI

    plain = {"x-agent-gateway-client": "plain"}
    model = ChatOpenAI(
        model="Tools", base_url=f"{server.url}/v1", api_key="any", use_responses_api=True, default_headers=plain
    )
    answer = model.invoke('call add {"a": 2, "b": 3}')
    assert answer.text == "tool said: 5"
    assert not answer.tool_calls


def test_langchain(server):
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="Tools", base_url=f"{server.url}/v1", api_key="any", max_retries=0, stream_usage=True)
    answer = model.invoke('call add {"a": 2, "b": 3}')
    assert answer.content == "tool said: 5"
    assert not answer.tool_calls
    assert answer.usage_metadata["total_tokens"] > 0
    chunks = list(model.stream("say: one two three"))
    assert "".join(chunk.content for chunk in chunks) == "one two three"
    assert chunks[-1].usage_metadata or any(chunk.usage_metadata for chunk in chunks)
    assert [each.content for each in model.batch(["say: a", "say: b"])] == ["a", "b"]


@pytest.mark.parametrize("responses", [False, True])
def test_langchain_with_its_own_tools(server, responses):
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def get_weather(city: str) -> str:
        """The weather."""
        return weather(json.dumps({"city": city}))

    client = ChatOpenAI(model="Tools", base_url=f"{server.url}/v1", api_key="any", use_responses_api=responses)
    model = client.bind_tools([get_weather])
    for send in (model.invoke, lambda messages: functools.reduce(operator.add, model.stream(messages))):
        messages = [HumanMessage(TASK)]
        for city in ("Oslo", "Rome"):
            answer = send(messages)
            [call] = answer.tool_calls
            assert (call["name"], call["args"]) == ("get_weather", {"city": city})
            messages += [answer, get_weather.invoke(call)]
            assert isinstance(messages[-1], ToolMessage)
        assert send(messages).text == "tool said: sunny in Rome"


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_sdk_agent_with_its_own_tools(server, api, stream):
    from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool
    from openai import AsyncOpenAI

    @function_tool
    def get_weather(city: str) -> str:
        """The weather."""
        return weather(json.dumps({"city": city}))

    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel

    async def ask():
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            given = Agent(name="outer", tools=[get_weather], model=kind("Tools", client)), TASK
            config = RunConfig(tracing_disabled=True)
            if not stream:
                return (await Runner.run(*given, run_config=config)).final_output
            result = Runner.run_streamed(*given, run_config=config)
            async for _ in result.stream_events():
                pass
            return result.final_output

    assert asyncio.run(ask()) == "tool said: sunny in Rome"


@pytest.mark.parametrize("stream", ["", " streamed"])
@pytest.mark.parametrize("client", ["openai chat", "openai responses", "ai compatible", "ai openai"])
def test_javascript_clients_do_not_repeat_what_a_tool_did(shop, node_folder, client, stream):
    server, charges, _ = shop
    charges.unlink(missing_ok=True)
    command = ["node", "retries.mjs", f"{server.url}/v1", client + stream]
    ran = subprocess.run(command, cwd=node_folder, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert ran.returncode == 0, ran.stderr
    assert charges.read_text() == "x"


@pytest.mark.parametrize("stream", [False, True])
def test_langchain_does_not_repeat_what_a_tool_did(shop, stream):
    from langchain_openai import ChatOpenAI

    server, charges, _ = shop
    charges.unlink(missing_ok=True)
    model = ChatOpenAI(model="Shop", base_url=f"{server.url}/v1", api_key="any")
    ask = (lambda: list(model.stream("500"))) if stream else (lambda: model.invoke("500"))
    with pytest.raises(openai.APIError):
        ask()
    assert charges.read_text() == "x"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_pydantic_ai_chats_and_does_not_repeat_what_a_tool_did(server, shop, api, stream):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    kind = OpenAIChatModel if api == "chat" else OpenAIResponsesModel

    async def ask(at, name, text):
        async with openai.AsyncOpenAI(base_url=f"{at.url}/v1", api_key="any") as client:
            agent = Agent(kind(name, provider=OpenAIProvider(openai_client=client)))
            if not stream:
                return (await agent.run(text)).output
            async with agent.run_stream(text) as result:
                return await result.get_output()

    assert asyncio.run(ask(server, "Tools", 'call add {"a": 2, "b": 3}')) == "tool said: 5"
    shop_server, charges, _ = shop
    charges.unlink(missing_ok=True)
    with contextlib.suppress(Exception):  # the class of the error is the client's own
        asyncio.run(ask(shop_server, "Shop", "500"))
    assert charges.read_text() == "x"
