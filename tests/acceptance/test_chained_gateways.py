"""A gateway whose model is an agent of another gateway: approvals and errors pass through both."""

import openai
import pytest

from tests.acceptance.conftest import serving
from tests.support.upstream import FakeUpstream

INNER = '''
from agents import Agent, function_tool

@function_tool(needs_approval=True)
def delete(name: str) -> str:
    """Delete a file."""
    return f"deleted {name}"

@function_tool(failure_error_function=None)
def fail() -> str:
    """Fail."""
    raise ValueError

agent = Agent(name="Inner", tools=[delete, fail])
'''
OUTER = """
from agents import Agent
agent = Agent(name="Outer", model="Inner")
"""
SETTINGS = """
[plugins.upstreams.up]
base_url = "{url}"
default_model = "{model}"
api = "{api}"
max_retries = 0
[plugins.entry_point_discovery]
enabled = false
"""


def write(folder, name, code, url, *, model, api="chat"):
    (folder / "agents").mkdir(parents=True)
    (folder / "agents" / f"{name}.py").write_text(code)
    (folder / "gateway.toml").write_text(SETTINGS.format(url=url, model=model, api=api))
    return folder


@pytest.fixture(scope="module", params=["chat", "responses"])
def outer(request, tmp_path_factory):
    """The outer gateway, which uses the inner one with either API."""
    folder = tmp_path_factory.mktemp("chained")
    with (
        FakeUpstream() as upstream,
        serving(write(folder / "inner", "Inner", INNER, upstream.base_url, model="m")) as inner,
        serving(
            write(folder / "outer", "Outer", OUTER, f"{inner.url}/v1", model="Inner", api=request.param)
        ) as running,
    ):
        yield running


def ask(server, *messages, stream=False):
    roles = ("user", "assistant")
    given = [{"role": roles[place % 2], "content": text} for place, text in enumerate(messages)]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(model="Outer", messages=given, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("said", "result"), [("approve", "tool said: deleted a.txt"), ("reject", "not approved")])
def test_an_approval_is_given_through_both(outer, stream, said, result):
    request = 'call delete {"name": "a.txt"}'
    question = ask(outer, request, stream=stream)
    assert "Approval needed" in question
    assert "appr_" in question
    answer = ask(outer, request, question, said, stream=stream)
    assert result in answer
    # The inner gateway reports that the request was answered, and the outer one repeats the reason to its operator.
    with pytest.raises(openai.APIError):
        ask(outer, request, question, said, stream=stream)
    with openai.OpenAI(base_url=f"{outer.url}/v1", api_key="any") as client:
        errors = client.get("/../admin/agents/errors", cast_to=object)
    assert errors["errors"][0]["upstream"]["code"] == "approval_not_found"


def test_a_failure_after_a_tool_is_not_retried_and_has_the_inner_code(outer):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(outer, "call fail {}")
    assert caught.value.status_code == 424
    assert caught.value.response.headers["x-should-retry"] == "false"
