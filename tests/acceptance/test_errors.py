"""Every failure returns an error in OpenAI's format with the right status, and does not stop the server."""

import contextlib

import httpx2
import openai
import pytest

from tests.acceptance.test_chat import server, text_of, user

__all__ = ["server"]


def ask(server, text, *, model="Tools", stream=False):
    answer = server.client().chat.completions.create(model=model, messages=user(text), stream=stream)
    return text_of(answer) if stream else answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("fail 500", 502, "upstream_error"),
        ("fail 401", 502, "upstream_auth_failed"),
        ("fail 429 7", 429, "upstream_rate_limited"),
        ("fail 404", 502, "upstream_model_not_found"),
        ("fail 400", 400, "upstream_rejected_request"),
    ],
)
def test_a_failure_before_the_first_output_has_its_own_status(server, text, status, code, stream):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, text, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body["code"] == code
    assert "canary" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("call fatal {}", "tool_failed"),
        ("call leave {}", "agent_exit"),
        ("call leave_in_thread {}", "agent_exit"),
        ("call interrupt {}", "agent_exit"),
        ('always call add {"a": 1, "b": 1}', "max_turns_exceeded"),
    ],
)
def test_a_failure_after_a_tool_started_has_a_status_that_is_not_retried(server, text, code, stream):
    with pytest.raises(openai.APIError) as caught:
        ask(server, text, stream=stream)
    assert caught.value.body["code"] == code
    assert isinstance(caught.value, openai.APIStatusError) is not stream
    assert stream or caught.value.status_code == 424
    # The client is on the developer's machine, and the gateway has no keys.
    assert ("ValueError: canary-of-a-tool" in str(caught.value)) == (code == "tool_failed")
    assert "Traceback" not in str(caught.value)


def test_the_upstreams_retry_after_is_forwarded(server):
    with pytest.raises(openai.RateLimitError) as caught:
        ask(server, "fail 429 7")
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("tool", ["give_up", "many_errors", "broken"])
def test_the_server_survives_exceptions_in_tools(server, tool):
    with contextlib.suppress(openai.APIError):
        ask(server, f"call {tool} {{}}", stream=True)
    assert ask(server, "say: still here", model="Plain") == "still here"


@pytest.mark.parametrize(
    "text", ["rst 3", "noend 3", "cut 3", "error-in-200", "garbage", "badutf8"], ids=lambda text: text.split()[0]
)
def test_an_interrupted_stream_ends_with_an_error_and_without_done(server, text):
    body = {"model": "Plain", "messages": user(text), "stream": True}
    with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=20) as response:
        seen = response.read().decode()
    if response.status_code == 200:
        assert '"error":{' in seen
        assert "[DONE]" not in seen
    else:
        assert response.status_code == 502
    assert "Traceback" not in seen
    assert "JSON" not in seen or "no JSON" in seen


def test_the_official_client_raises_an_error_within_a_stream(server):
    with (
        server.client().chat.completions.create(model="Plain", messages=user("rst 3"), stream=True) as stream,
        pytest.raises(openai.APIError, match="connection to the upstream failed or was closed early"),
    ):
        for _ in stream:
            pass


def test_an_interrupted_non_streamed_answer_is_an_error(server):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, "noend 3", model="Plain")
    assert caught.value.status_code == 502


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"n": 2}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stop": [1]}, "stop"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
    ],
)
def test_an_invalid_field_is_rejected_with_its_path(server, change, param):
    body = {"model": "Plain", "messages": user("say: hi"), **change}
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().post("/chat/completions", body=body, cast_to=object)
    assert caught.value.body["param"] == param
    assert caught.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"model": NaN}', 400),
        (b'{"model": "\xff"}', 400),
        (b'{"model": "\\ud800"}', 400),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", 400),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"a": "' + b"x" * 1_100_000 + b'"}', 413),
    ],
    ids=["empty", "cut", "list", "nan", "not utf-8", "surrogate", "deep", "very deep", "large"],
)
def test_an_invalid_body_is_rejected(server, content, status):
    answer = httpx2.post(f"{server.url}/v1/chat/completions", content=content, timeout=20)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_unknown_fields_and_nulls_are_ignored(server):
    body = {"model": "Plain", "messages": user("say: hi"), "temperature": None, "stream": None, "surprise": {"a": 1}}
    answer = server.client().post("/chat/completions", body=body, cast_to=object)
    assert answer["choices"][0]["message"]["content"] == "hi"


def test_a_broken_agent_is_unavailable(server):
    with pytest.raises(openai.InternalServerError) as caught:
        ask(server, "hi", model="Broken")
    assert caught.value.status_code == 503
    assert caught.value.body["code"] == "agent_unavailable"


def test_other_methods_and_pages(server):
    assert httpx2.head(f"{server.url}/v1/models").status_code == 200
    options = httpx2.options(f"{server.url}/v1/chat/completions")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, POST")
    wrong = httpx2.put(f"{server.url}/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    missing = httpx2.get(f"{server.url}/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert httpx2.get(f"{server.url}/healthz").text == "ok\n"
    assert httpx2.get(f"{server.url}/readyz").text.startswith("ready\n")


def test_the_log_contains_no_prompts_or_tool_output(server):
    with pytest.raises(openai.APIStatusError):
        ask(server, "call fatal {} canary-of-a-prompt")
    assert "canary" not in server.text
    assert "the run of Tools failed" in server.text
