"""The settings that a real HTTP upstream receives, for each way in which a model can replace the agent's own."""

import pytest
from agents import Agent, ModelSettings, RunConfig, Runner
from openai.types.shared import Reasoning

from gateway_core.runs.model_settings import settings_for
from gateway_core.testing import gateway_in_memory
from tests.support.upstream import FakeUpstream, Reply

BOTH = pytest.mark.parametrize("api", ["chat", "responses"])
OWN = ModelSettings(reasoning=Reasoning(effort="high"), verbosity="high")


def sent(upstream):
    """Return the model, the reasoning effort and the verbosity of each call."""
    return [
        (
            body["model"],
            body.get("reasoning_effort") or (body.get("reasoning") or {}).get("effort"),
            body.get("verbosity") or (body.get("text") or {}).get("verbosity"),
        )
        for body in (record.body for record in upstream.records if record.body)
    ]


async def calls(agents=None, *, folder=None, request=(), text="say: hi", agent_settings=None, **upstream_settings):
    """Return what the upstream receives for a request to the agent X."""
    with FakeUpstream() as upstream:
        upstream_settings = {"default_model": "gpt-4.1", **upstream_settings}
        config = {
            "plugins": {"upstreams": {"fake": {"base_url": upstream.base_url, "max_retries": 0, **upstream_settings}}},
            "agents": {"X": agent_settings or {}},
        }
        async with gateway_in_memory(agents or {}, folder=folder, config=config) as g:
            upstream.reset()
            messages = [{"role": "user", "content": text}]
            await g.openai.chat.completions.create(model="X", messages=messages, **dict(request))
        return sent(upstream)


@BOTH
@pytest.mark.parametrize("model", ["gpt-4.1", "llama3.2", "fake/gpt-4o", "gpt-5-chat-latest"])
async def test_an_operators_model_gets_no_settings_for_gpt_5(api, model):
    for agent in (
        Agent(name="x"),
        Agent(name="x", model="gpt-5"),
        Agent(name="x", model="gpt-5.1", model_settings=OWN),
    ):
        [(called, *settings)] = await calls(
            {"X": agent}, api=api, agent_settings={"model": model}, models={model: model.rpartition("/")[2]}
        )
        assert called == model.rpartition("/")[2]
        assert settings == [None, None], agent.model


async def test_a_model_that_the_module_sets_for_the_gateway_gets_no_settings_for_gpt_5(tmp_path):
    (tmp_path / "X.py").write_text(
        "from agents import Agent\n__gateway__ = {'model': 'fake/llama3.2'}\nagent = Agent(name='x')\n"
    )
    assert await calls(folder=tmp_path) == [("llama3.2", None, None)]


@pytest.mark.parametrize("default", ["gpt-5.1", "Qwen3"])
async def test_the_sdks_default_model_in_the_environment_makes_no_difference(monkeypatch, default):
    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", default)
    assert await calls({"X": Agent(name="x")}) == [("gpt-4.1", None, None)]
    assert await calls({"X": Agent(name="x")}, agent_settings={"model": "fake/m"}) == [("m", None, None)]


async def test_defaults_become_those_of_the_called_model():
    for model, effort in (("gpt-5", "low"), ("gpt-5.1", "none"), ("gpt-5.2-pro", "medium"), ("openai/gpt-5", "low")):
        found = await calls({"X": Agent(name="x")}, agent_settings={"model": f"fake/{model}"})
        assert found == [(model, effort, "low")]


async def test_an_authors_settings_reach_a_replacement_that_accepts_them():
    agent = Agent(name="x", model="gpt-5", model_settings=OWN)
    assert await calls({"X": agent}, default_model="gpt-5.2") == [("gpt-5.2", "high", "high")]
    assert await calls({"X": agent}, default_model="o4-mini") == [("o4-mini", "high", None)]
    assert await calls({"X": agent}, default_model="openai/gpt-oss-20b") == [("openai/gpt-oss-20b", "high", None)]
    assert await calls({"X": agent}, default_model="o1-mini") == [("o1-mini", None, None)]


async def test_an_authors_settings_reach_the_model_that_the_author_names():
    for name in ("fake/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"):
        agent = Agent(name="x", model=name, model_settings=OWN)
        found = await calls({"X": agent}, models={"Qwen/Qwen3-8B": "Qwen/Qwen3-8B"})
        assert found == [("Qwen/Qwen3-8B", "high", "high")]


async def test_a_clients_settings_reach_every_model():
    request = {"reasoning_effort": "none", "verbosity": "low"}
    for agent in (Agent(name="x"), Agent(name="x", model="gpt-5.1")):
        found = await calls({"X": agent}, request=request, agent_settings={"model": "fake/llama3.2"})
        assert found == [("llama3.2", "none", "low")]
    found = await calls(
        {"X": Agent(name="x", model="gpt-5")}, request={"reasoning_effort": "high"}, models={"gpt-5": "gpt-5"}
    )
    assert found == [("gpt-5", "high", "low")]


async def test_handoffs_and_agents_as_tools_are_decided_for_themselves():
    inner = Agent(name="inner", model="gpt-5")
    target = Agent(name="target", model_settings=OWN)
    agent = Agent(name="x", tools=[inner.as_tool("ask", "Ask.")], handoffs=[target])
    found = await calls({"X": agent}, text='call ask {"input": "say: hi"}', models={"gpt-5": "gpt-5"})
    assert found == [("gpt-4.1", None, None), ("gpt-5", "low", "low"), ("gpt-4.1", None, None)]
    found = await calls({"X": agent}, text="call transfer_to_target {}")
    assert found == [("gpt-4.1", None, None), ("gpt-4.1", None, None)]


@pytest.mark.parametrize(
    ("model", "own", "found"),
    [
        (None, None, (None, None)),
        ("gpt-5", None, (None, None)),
        ("gpt-5", OWN, (None, None)),
        ("llama3.2", OWN, ("high", "high")),
    ],
)
async def test_the_model_of_a_runs_configuration_replaces_the_agents(model, own, found):
    settings = {"model": model, **({"model_settings": own} if own else {})}
    agent = Agent(name="x", **settings)

    async def run_workflow(text: str) -> str:
        config = RunConfig(model="fake/llama3.2")
        return str((await Runner.run(agent, text, run_config=config)).final_output)

    assert await calls({"X": run_workflow}) == [("llama3.2", *found)]


async def test_the_settings_of_a_runs_configuration_are_for_its_model():
    agent = Agent(name="x", model="gpt-4.1")

    async def run_workflow(text: str) -> str:
        config = RunConfig(model="fake/Qwen3", model_settings=OWN)
        return str((await Runner.run(agent, text, run_config=config)).final_output)

    assert await calls({"X": run_workflow}) == [("Qwen3", "high", "high")]


async def test_a_fallback_gets_the_settings_for_its_own_model():
    with FakeUpstream(lambda request: Reply([b"{}"], status=503)) as first, FakeUpstream() as second:
        upstreams = {
            "one": {"base_url": first.base_url, "default_model": "gpt-5", "fallback": "two"},
            "two": {"base_url": second.base_url, "default_model": "llama3.2"},
        }
        async with gateway_in_memory({"X": Agent(name="x")}, config={"plugins": {"upstreams": upstreams}}) as g:
            second.reset()
            await g.openai.chat.completions.create(model="X", messages=[{"role": "user", "content": "say: hi"}])
        assert sent(first)[-1] == ("gpt-5", "low", "low")
        assert sent(second) == [("llama3.2", None, None)]


async def test_dropped_settings_are_logged_once(caplog):
    agent = Agent(name="x", model="gpt-5", model_settings=OWN)
    for _ in range(2):
        await calls({"X": agent}, default_model="only-here")
    assert (
        caplog.text.count("not sent to the model only-here, which its author did not name: reasoning, verbosity") == 1
    )


def test_other_settings_for_reasoning_and_sampling():
    own = ModelSettings(
        temperature=0.2,
        top_p=0.9,
        response_include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        extra_args={"reasoning_effort": "low", "seed": 1},
        extra_body={"verbosity": "low"},
    )
    for model in ("gpt-4.1", "Qwen/Qwen3-8B"):
        found = settings_for(own, model)
        assert (found.temperature, found.top_p) == (0.2, 0.9)
        assert found.response_include == ["message.output_text.logprobs"]
        assert (found.extra_args, found.extra_body) == ({"seed": 1}, None)
    for model in ("gpt-5", "o3", "openai/gpt-5-mini"):
        found = settings_for(own, model)
        assert (found.temperature, found.top_p) == (None, None)
        assert found.response_include == own.response_include
        assert found.extra_args == own.extra_args
    for model in ("gpt-5.2", "gpt-oss:20b", "gpt-5-chat-latest", "gpt-35-turbo"):
        assert settings_for(own, model).temperature == 0.2, model
    assert settings_for(own, "gpt-5.6-luna") is own


def test_a_verbosity_in_the_object_of_the_responses_api_is_adapted_as_well():
    text = {"verbosity": "low", "format": {"type": "text"}}
    found = settings_for(ModelSettings(extra_body={"text": text, "seed": 1}), "llama3.2")
    assert found.extra_body == {"text": {"format": {"type": "text"}}, "seed": 1}
    assert settings_for(ModelSettings(extra_args={"text": {"verbosity": "low"}}), "llama3.2").extra_args is None
    own = ModelSettings(extra_body={"text": text})
    assert settings_for(own, "gpt-5") is own
