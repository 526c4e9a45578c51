"""Tests of the templates of `agent-gateway new`, with the SDK's own Runner and a scripted model."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agents import Agent, InputGuardrailTripwireTriggered, RunConfig, Runner, set_tracing_disabled
from agents.items import ToolCallOutputItem
from agents.testing import ScriptedModel, assistant_message, function_call
from click.testing import CliRunner

from gateway_core.cli.scaffold import PLACEHOLDER, TEMPLATES, new

# Allowed as a name but not as an identifier: it must only be inserted into strings.
NAME = "labs/3rd-Try.v2"


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    set_tracing_disabled(True)
    yield
    set_tracing_disabled(False)


def write(template: str, folder: Path) -> ModuleType:
    """Create an agent from a template with the command, and import it."""
    done = CliRunner().invoke(new, [NAME, "--template", template, "--agents", str(folder)])
    assert done.exit_code == 0, done.output
    path = folder / NAME / "agent.py"
    spec = importlib.util.spec_from_file_location(f"written_from_{template}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(*steps: Any) -> RunConfig:
    return RunConfig(model=ScriptedModel(steps))


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_name_is_inserted(template: str, tmp_path: Path) -> None:
    module = write(template, tmp_path)
    agent = module.answerer if template == "workflow" else module.agent
    assert agent.name == "3rd-Try.v2"
    assert PLACEHOLDER not in (tmp_path / NAME / "agent.py").read_text(encoding="utf-8")
    assert all(found.model is None for found in vars(module).values() if isinstance(found, Agent))


def test_there_is_a_template_for_each_choice() -> None:
    folder = Path(__file__).resolve().parents[2] / "gateway_core" / "cli" / "templates"
    assert {path.parent.name for path in folder.glob("*/agent.py")} == set(TEMPLATES)


async def test_basic(tmp_path: Path) -> None:
    result = await Runner.run(write("basic", tmp_path).agent, "Hi", run_config=config([assistant_message("Hello.")]))
    assert result.final_output == "Hello."


async def test_tools(tmp_path: Path) -> None:
    calls = [
        function_call("get_weather", {"city": "Paris"}, call_id="c1"),
        function_call("get_weather", {"city": "Atlantis"}, call_id="c2"),
        function_call("add", {"a": 1, "b": 2.5}, call_id="c3"),
    ]
    run_config = config(calls, [assistant_message("Done.")])
    result = await Runner.run(write("tools", tmp_path).agent, "Go on", run_config=run_config)
    outputs = [item.output for item in result.new_items if isinstance(item, ToolCallOutputItem)]
    assert outputs == ["The weather in Paris: 18 °C, sunny.", "There is no forecast for Atlantis.", 3.5]


@pytest.mark.parametrize("target", ["cook", "shopper"])
async def test_handoff(target: str, tmp_path: Path) -> None:
    module = write("handoff", tmp_path)
    run_config = config([function_call(f"transfer_to_{target}", {}, call_id="c1")], [assistant_message("Soup.")])
    result = await Runner.run(module.agent, "What shall I eat?", run_config=run_config)
    assert result.last_agent is getattr(module, target)
    assert result.final_output == "Soup."


@pytest.mark.parametrize(
    ("text", "stopped"),
    [
        ("My card is 4111 1111 1111 1111.", True),
        ([{"role": "user", "content": [{"type": "input_text", "text": "4111-1111-1111-1111"}]}], True),
        ("My order is 20261123-7.", False),
    ],
)
async def test_guardrail(text: Any, stopped: bool, tmp_path: Path) -> None:
    agent, model = write("guardrail", tmp_path).agent, ScriptedModel([[assistant_message("Thank you.")]])
    if stopped:
        with pytest.raises(InputGuardrailTripwireTriggered) as caught:
            await Runner.run(agent, text, run_config=RunConfig(model=model))
        assert not caught.value.guardrail_result.guardrail.run_in_parallel  # else a fast model could win
        assert model.calls == ()
    else:
        assert (await Runner.run(agent, text, run_config=RunConfig(model=model))).final_output == "Thank you."


@pytest.mark.parametrize(
    ("kind", "answer"), [("question", "Because of the moon."), ("other", "What would you like to know?")]
)
async def test_workflow(kind: str, answer: str, tmp_path: Path) -> None:
    module = write("workflow", tmp_path)
    # The module creates its own RunConfig, so the models are set on its agents.
    module.classifier.model = ScriptedModel([[assistant_message(f'{{"kind": "{kind}"}}')]])
    module.answerer.model = ScriptedModel([[assistant_message("Because of the moon.")]])
    result = await module.run_workflow(module.WorkflowInput(input_as_text="Why are there tides?"))
    assert result == {"output_text": answer}
    module.classifier.model.assert_complete()
    assert len(module.answerer.model.calls) == (1 if kind == "question" else 0)
