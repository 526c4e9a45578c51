"""An agent's own client that fails is named: its server for the operator, the fact for the client."""

import openai
import pytest

from tests.acceptance.conftest import serving
from tests.support.upstream import FakeUpstream, error_reply

MODULE = """
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner
from openai import AsyncOpenAI

client = AsyncOpenAI(base_url="{url}", api_key="sk-hard-coded-key", max_retries=0)
agent = Agent(name="Own", instructions="Help.", model={model}("own", openai_client=client))
"""
WORKFLOW = (
    MODULE.replace("agent =", "own =")
    + """

async def run_workflow(text):
    {call}
"""
)
DIRECT = 'await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])'
SHAPES = {
    "chat": MODULE.replace("{model}", "OpenAIChatCompletionsModel"),
    "responses": MODULE.replace("{model}", "OpenAIResponsesModel"),
    "workflow": WORKFLOW.replace("{model}", "OpenAIChatCompletionsModel").replace(
        "{call}", "await Runner.run(own, text)"
    ),
    "direct": WORKFLOW.replace("{model}", "OpenAIChatCompletionsModel").replace("{call}", DIRECT),
}


def ask(server, model, stream):
    messages = [{"role": "user", "content": "hello"}]
    return [*server.client().chat.completions.create(model=model, messages=messages, stream=stream)]


def test_an_own_client_that_fails_is_named(tmp_path):
    with FakeUpstream(lambda _: error_reply(401)) as strict, FakeUpstream(lambda _: error_reply(401)) as upstream:
        servers = {
            "down": ("http://127.0.0.1:9/v1", "http://127.0.0.1:9"),
            "dns": ("http://models.invalid/v1", "http://models.invalid"),
            "key": (strict.base_url, strict.base_url.removesuffix("/v1")),
        }
        folder = tmp_path / "agents"
        folder.mkdir()
        for kind, (url, _) in servers.items():
            for shape, text in SHAPES.items():
                (folder / f"{kind}_{shape}.py").write_text(text.replace("{url}", url))
        (folder / "plain.py").write_text("from agents import Agent\nagent = Agent(name='p')\n")
        config = f"[plugins.upstreams.main]\nbase_url = '{upstream.base_url}'\nmax_retries = 0\n"
        (tmp_path / "gateway.toml").write_text(config)
        with serving(tmp_path) as server:
            for kind, (_, where) in servers.items():
                for shape in SHAPES:
                    model = f"{kind}_{shape}"
                    for stream in (False, True):
                        with pytest.raises(openai.APIError) as raised:
                            ask(server, model, stream)
                        assert "the agent's own client" in str(raised.value), model
                        assert where not in str(raised.value), model
                        assert "sk-hard" not in str(raised.value), model
                    [line] = [line for line in server.output if f"the run of {model} failed" in line][:1]
                    assert f"the agent's own client calls {where}" in line
                    assert "sk-hard" not in line
                    assert ("cannot be resolved" in line) == (kind == "dns"), line
            with pytest.raises(openai.APIError, match="the upstream rejected the gateway's credential"):
                ask(server, "plain", stream=False)
