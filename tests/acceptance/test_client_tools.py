"""Client tools with the real server and the official client: chat completions and Responses, whole and streamed."""

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import Server, serving
from tests.acceptance.test_chat import DROP_INS, user
from tests.support.upstream import FakeUpstream

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "The weather.", "parameters": PARAMETERS}
TASK = 'call add {"a": 2, "b": 3} call get_weather {"city": "Oslo"} then call get_weather {"city": "Rome"}'
HEADER = "x-agent-gateway-ignored-tools"


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "gateway.toml").write_text(
        f"""
        [agents.Tools]
        client_tools = "offer"
        [plugins.upstreams.fake]
        base_url = "{upstream.base_url}"
        default_model = "default-model"
        max_retries = 0
        [plugins.entry_point_discovery]
        enabled = false
        """
    )
    with serving(folder, "--agents", str(DROP_INS)) as running:
        yield running


def weather(arguments: str) -> str:
    return f"sunny in {json.loads(arguments)['city']}"


@pytest.mark.parametrize("stream", [False, True])
def test_chat_completions(server, records, stream):
    messages = user(TASK)
    given = {"model": "Tools", "tools": [{"type": "function", "function": WEATHER}]}
    client = server.client()
    for _ in range(3):
        if stream:
            with client.chat.completions.stream(messages=messages, **given) as events:
                choice = events.get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(messages=messages, **given).choices[0]
        messages.append(choice.message.model_dump(include={"role", "content", "tool_calls"}))
        if choice.finish_reason != "tool_calls":
            break
        for call in choice.message.tool_calls:
            assert call.function.name == "get_weather"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": weather(call.function.arguments)})
    assert choice.message.content == "tool said: sunny in Rome"
    sent = records(3)
    functions = [tool["function"] for tool in sent[0].body["tools"]]
    assert (functions[0]["name"], functions[-1]["name"]) == ("add", "get_weather")
    assert functions[-1]["parameters"] == PARAMETERS
    assert [m["content"] for m in sent[2].body["messages"] if m["role"] == "tool"] == [
        "5",
        "sunny in Oslo",
        "sunny in Rome",
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_responses(server, records, stream):
    given = {"model": "Tools", "tools": [{"type": "function", **WEATHER}]}
    client = server.client()
    asked, previous = TASK, None
    for _ in range(3):
        if stream:
            with client.responses.stream(input=asked, previous_response_id=previous, **given) as events:
                kinds = [event.type for event in events]
                response = events.get_final_response()
            assert kinds[-1] == "response.completed"
        else:
            response = client.responses.create(input=asked, previous_response_id=previous, **given)
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            break
        assert not stream or "response.function_call_arguments.done" in kinds
        previous = response.id
        asked = [
            {"type": "function_call_output", "call_id": call.call_id, "output": weather(call.arguments)}
            for call in calls
        ]
    assert response.output_text == "tool said: sunny in Rome"
    assert len(records(3)) == 3


@pytest.mark.parametrize(("model", "expected"), [("Plain", "*"), ("Tools", "add")])
def test_a_header_names_ignored_tools(server, model, expected):
    tools = [{"type": "function", "function": WEATHER}, {"type": "function", "function": {"name": "add"}}]
    raw = server.client().chat.completions.with_raw_response
    for stream in (False, True):
        answer = raw.create(model=model, messages=user("say: hello"), tools=tools, stream=stream)
        assert answer.headers[HEADER] == expected


def test_a_restart_keeps_the_paused_run(upstream, tmp_path):
    (tmp_path / "gateway.toml").write_text(
        f"""
        [clients]
        client_tools = "offer"
        [plugins.upstreams.fake]
        base_url = "{upstream.base_url}"
        default_model = "default-model"
        [plugins.entry_point_discovery]
        enabled = false
        """
    )
    messages = user('call add {"a": 2, "b": 3} call get_weather {"city": "Oslo"}')
    given = {"model": "Tools", "tools": [{"type": "function", "function": WEATHER}]}
    for _ in range(2):
        with serving(tmp_path, "--agents", str(DROP_INS)) as running:
            message = running.client().chat.completions.create(messages=messages, **given).choices[0].message
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls or ()]
    assert message.content == "tool said: 5; sunny"
