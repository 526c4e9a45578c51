"""Chat completions of the real server with the official client: models, streaming, tools and guardrails."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.acceptance.conftest import Server, serving
from tests.support.upstream import FakeUpstream

DROP_INS = Path(__file__).parents[1] / "fixtures" / "dropin_agents"


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "gateway.toml").write_text(
        f"""
        [http]
        max_body = "1 MiB"
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


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def text_of(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_the_banner_lists_the_models(server):
    assert "models     Guarded, Plain, quick, Team/Research, Tools" in server.text
    assert "broken     Broken:" in server.text
    assert "the module 'this_package_does_not_exist' is not installed" in server.text
    assert "upstream   fake" in server.text
    assert "Open WebUI" in server.text


def test_models_can_be_listed_and_retrieved(server):
    client = server.client()
    assert [model.id for model in client.models.list()] == ["Guarded", "Plain", "quick", "Team/Research", "Tools"]
    assert client.models.retrieve("Team/Research").id == "Team/Research"
    assert client.models.retrieve("default/plain").id == "Plain"
    with pytest.raises(openai.NotFoundError, match="did you mean 'Plain'"):
        client.models.retrieve("Plaim")


def test_a_non_streamed_answer(server, records):
    answer = server.client().chat.completions.create(model="Plain", messages=user("say: one two three"))
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "Plain"
    assert answer.usage.prompt_tokens == 20
    assert answer.usage.completion_tokens == 3
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    [record] = records(1)
    assert record.body["model"] == "default-model"
    assert record.body["messages"][0] == {"role": "system", "content": "You are plain."}
    assert "reasoning_effort" not in record.body
    assert "verbosity" not in record.body


def test_a_streamed_answer(server):
    stream = server.client().chat.completions.create(
        model="Plain", messages=user("say: one two three"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == "one two three"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 3


def test_usage_is_sent_only_on_request(server):
    chunks = list(server.client().chat.completions.create(model="Plain", messages=user("say: hi"), stream=True))
    assert all(chunk.usage is None for chunk in chunks)


def test_the_official_streaming_helper_accepts_it(server):
    with server.client().chat.completions.stream(model="Plain", messages=user("say: a b")) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "a b"


def test_tools_are_called_and_usage_is_summed(server, records):
    answer = server.client().chat.completions.create(model="Tools", messages=user('call add {"a": 2, "b": 3}'))
    assert answer.choices[0].message.content == "tool said: 5"
    assert answer.choices[0].message.tool_calls is None
    assert len(records(2)) == 2
    # The input of the second call contains the user's message, the call and its result.
    assert answer.usage.prompt_tokens == 20 + 40


def test_tool_calls_are_not_streamed_to_the_client(server):
    chunks = list(
        server.client().chat.completions.create(model="Tools", messages=user('call add {"a": 2, "b": 3}'), stream=True)
    )
    assert text_of(chunks) == "tool said: 5"
    assert not any(chunk.choices and chunk.choices[0].delta.tool_calls for chunk in chunks)


def test_the_clients_own_tools_are_ignored(server, records):
    tool = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object", "properties": {}}}}
    answer = server.client().chat.completions.create(model="Plain", messages=user("say: ok"), tools=[tool])
    assert answer.choices[0].message.content == "ok"
    assert "tools" not in records(1)[0].body


@pytest.mark.parametrize("tool", ["as_tool", "ask_helper"])
def test_nested_agents_use_the_same_upstream(server, records, tool):
    arguments = {"input": "say: from inside"} if tool == "as_tool" else {"question": "say: from inside"}
    for stream in (False, True):
        answer = server.client().chat.completions.create(
            model="Tools", messages=user(f"call {tool} {json.dumps(arguments)}"), stream=stream
        )
        text = text_of(answer) if stream else answer.choices[0].message.content
        assert text == "tool said: from inside"
    assert len(records(6)) == 6


def test_the_whole_conversation_reaches_the_model(server, records):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
    server.client().chat.completions.create(
        model="Plain",
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "5"},
            {"role": "assistant", "content": "two"},
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "three"}, image]},
        ],
    )
    messages = records(1)[0].body["messages"]
    assert messages[0] == {"role": "system", "content": "You are plain.\n\nBe kind.\n\nBe brief."}
    assert [message["role"] for message in messages[1:]] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[2]["tool_calls"][0]["function"]["name"] == "add"
    assert messages[3]["content"] == "5"
    assert messages[5]["content"][1]["image_url"] == {"url": "data:image/png;base64,AA", "detail": "low"}


def test_model_settings_are_forwarded(server, records):
    server.client().chat.completions.create(
        model="Plain",
        messages=user("say: ok"),
        temperature=0.5,
        max_completion_tokens=7,
        seed=3,
        stop=["x"],
        reasoning_effort="low",
    )
    body = records(1)[0].body
    assert (body["temperature"], body["max_tokens"], body["seed"], body["stop"]) == (0.5, 7, 3, ["x"])
    assert body["reasoning_effort"] == "low"


def test_a_module_with_its_own_client_and_an_async_factory_works(server):
    answer = server.client().chat.completions.create(model="quick", messages=user("say: quick"))
    assert answer.choices[0].message.content == "quick"


def test_reasoning_is_a_separate_field(server):
    answer = server.client().chat.completions.create(model="Plain", messages=user("reasoning: why | answer: so"))
    assert answer.choices[0].message.content == "so"
    assert answer.choices[0].message.reasoning_content == "why"
    assert answer.usage.completion_tokens_details.reasoning_tokens == 1
    chunks = list(
        server.client().chat.completions.create(
            model="Plain", messages=user("reasoning: why | answer: so"), stream=True
        )
    )
    assert text_of(chunks) == "so"
    assert "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks) == "why"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("question", ["tell me the password", "say: darn it"])
def test_guardrails_refuse_and_nothing_leaks(server, question, stream):
    answer = server.client().chat.completions.create(model="Guarded", messages=user(question), stream=stream)
    if stream:
        chunks = list(answer)
        text, reason = text_of(chunks), chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (text, reason) == ("I can't help with that.", "content_filter")


def test_a_guarded_agent_answers_harmless_questions(server):
    stream = server.client().chat.completions.create(model="Guarded", messages=user("say: fine"), stream=True)
    assert text_of(stream) == "fine"


def test_concurrent_streams_are_isolated(server):
    async def one(client: openai.AsyncOpenAI, number: int) -> None:
        words = [f"stream{number}word{i}" for i in range(30)]
        stream = await client.chat.completions.create(
            model="Plain", messages=user(f"say: {' '.join(words)}"), stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text.split() == words

    async def all_of_them() -> None:
        async with server.async_client() as client:
            await asyncio.gather(*(one(client, number) for number in range(100)))

    asyncio.run(all_of_them())


def test_every_answer_carries_a_request_id(server):
    client = server.client()
    raw = client.models.with_raw_response.list()
    assert raw.headers["x-request-id"].startswith("req_")
    raw = client.chat.completions.with_raw_response.create(
        model="Plain", messages=user("say: hi"), extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=user("hi"))
    assert caught.value.request_id.startswith("req_")
