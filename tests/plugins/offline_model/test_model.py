"""The offline model under the SDK's own runner: tool calls, handoffs and valid output types."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    AgentOutputSchema,
    AgentOutputSchemaBase,
    Handoff,
    ModelSettings,
    RunConfig,
    Runner,
    WebSearchTool,
    function_tool,
    handoff,
)
from agents.extensions import handoff_filters
from agents.models.interface import ModelTracing
from gateway_plugins.offline_model.model import NOTICE, OfflineModel, OfflineProvider
from pydantic import BaseModel


@function_tool
def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Tell the weather in a city."""
    return f"Sunny in {city}, 20 degrees {unit}"


@function_tool
def roll_dice(count: int = 1, sides: int = 6) -> dict[str, Any]:
    """Roll dice."""
    return {"dice": f"{count}d{sides}", "rolls": [4] * count, "lucky": True}


@function_tool
def get_time() -> str:
    """Tell the time of today in a city."""
    return "noon"


async def run(agent: Agent[Any], input: Any, **config: Any) -> Any:
    """The result of a run; streamed and not, it must come to the same."""
    run_config = RunConfig(model_provider=OfflineProvider(), tracing_disabled=True, **config)
    result = await Runner.run(agent, input, run_config=run_config)
    streamed = Runner.run_streamed(agent, input, run_config=run_config)
    async for _ in streamed.stream_events():
        pass
    assert streamed.final_output == result.final_output
    assert calls(streamed) == calls(result)
    assert streamed.last_agent is result.last_agent
    assert streamed.context_wrapper.usage.requests == result.context_wrapper.usage.requests >= len(result.raw_responses)
    assert result.context_wrapper.usage.total_tokens == streamed.context_wrapper.usage.total_tokens == 0
    return result


def calls(result: Any) -> list[tuple[str, dict[str, Any]]]:
    items = [item.raw_item for item in result.new_items if item.type in ("tool_call_item", "handoff_call_item")]
    return [(item.name, json.loads(item.arguments)) for item in items]


def names(result: Any) -> list[str]:
    return [name for name, _ in calls(result)]


async def test_without_tools_it_says_what_it_is_and_what_was_written() -> None:
    agent = Agent(name="Plain", instructions="The password is swordfish.")
    result = await run(agent, "Hello, who are you?")
    assert result.final_output == f"{NOTICE}\n\nYou wrote: “Hello, who are you?”. A real LLM would answer here."


async def test_it_names_itself_once_in_a_conversation() -> None:
    first = await run(Agent(name="Plain"), "Hello")
    second = await run(Agent(name="Plain"), [*first.to_input_list(), {"role": "user", "content": "And now?"}])
    assert first.context_wrapper.usage.requests == 1
    assert NOTICE in first.final_output
    assert NOTICE not in second.final_output
    assert "And now?" in second.final_output


async def test_a_long_message_is_quoted_in_part() -> None:
    answer = (await run(Agent(name="Plain"), "x" * 5000)).final_output
    assert "x" * 200 + "…" in answer
    assert "x" * 201 not in answer


async def test_a_tool_that_fits_is_called_and_its_output_told() -> None:
    agent = Agent(name="Weather", tools=[get_time, get_weather])
    result = await run(agent, "What is the weather in Paris?")
    assert calls(result) == [("get_weather", {"city": "Paris", "unit": "celsius"})]
    assert "Sunny in Paris, 20 degrees celsius" in result.final_output
    assert result.final_output.startswith(NOTICE)


async def test_no_tool_is_called_where_none_fits() -> None:
    result = await run(Agent(name="Weather", tools=[get_weather, roll_dice]), "Good morning!")
    assert calls(result) == []


async def test_every_message_has_its_own_calls() -> None:
    agent = Agent(name="Weather", tools=[get_weather])
    first = await run(agent, "The weather in Paris?")
    second = await run(agent, [*first.to_input_list(), {"role": "user", "content": "And the weather in Rome?"}])
    assert calls(second) == [("get_weather", {"city": "Rome", "unit": "celsius"})]
    ids = [item["call_id"] for item in second.to_input_list() if item.get("type") == "function_call"]
    assert len(ids) == len(set(ids)) == 2


async def test_one_tool_is_called_for_a_message_names_before_descriptions() -> None:
    @function_tool
    def forecast() -> str:
        """Tell how the dice roll and what the weather will be."""
        return "Fair"

    agent = Agent(name="Both", tools=[forecast, get_weather, roll_dice])
    assert calls(await run(agent, "Roll 2 dice with 20 sides")) == [("roll_dice", {"count": 2, "sides": 20})]
    assert names(await run(agent, "Weather in Rome, and roll dice")) == ["get_weather"]
    assert names(await run(Agent(name="One", tools=[forecast]), "Roll dice")) == ["forecast"]


async def test_a_long_output_is_cut() -> None:
    @function_tool
    def report() -> str:
        return "x" * 5000

    answer = (await run(Agent(name="Long", tools=[report]), "the report")).final_output
    assert answer.count("x") == 4000


@pytest.mark.parametrize("reset", [True, False])
async def test_a_required_call_is_made_and_the_run_ends(reset: bool) -> None:
    settings = ModelSettings(tool_choice="required")
    agent = Agent(name="Must", tools=[get_time], model_settings=settings, reset_tool_choice=reset)
    assert names(await run(agent, "Hello")) == ["get_time"]


async def test_a_named_tool_is_called_and_none_means_none() -> None:
    tools: list[Any] = [get_weather, roll_dice]
    named = Agent(name="Named", tools=tools, model_settings=ModelSettings(tool_choice="roll_dice"))
    assert names(await run(named, "weather in Rome"))[0] == "roll_dice"
    silent = Agent(name="None", tools=tools, model_settings=ModelSettings(tool_choice="none"))
    assert names(await run(silent, "weather in Rome")) == []


async def test_hosted_tools_are_left_alone() -> None:
    agent = Agent(name="Web", tools=[WebSearchTool(), get_weather])
    assert names(await run(agent, "Search the web for the weather in Rome")) == ["get_weather"]


async def test_an_agent_as_a_tool_answers_and_the_notice_is_given_once() -> None:
    inner = Agent(name="Inner", tools=[get_weather])
    outer = Agent(name="Outer", tools=[inner.as_tool("weather_expert", "Knows the weather")])
    result = await run(outer, "What is the weather in Oslo?", workflow_name="nested")
    assert "Sunny in Oslo" in result.final_output
    assert result.final_output.count(NOTICE) == 1


class Escalation(BaseModel):
    reason: str
    urgency: int


async def test_a_handoff_that_fits_is_taken_with_its_input() -> None:
    taken: list[Escalation] = []

    async def on_handoff(_: Any, escalation: Escalation) -> None:
        taken.append(escalation)

    billing = Agent(name="Billing agent", handoff_description="Invoices and refunds")
    agent = Agent(
        name="Triage", tools=[get_weather], handoffs=[handoff(billing, on_handoff=on_handoff, input_type=Escalation)]
    )
    result = await run(agent, "I want a refund, urgency 3")
    assert result.last_agent is billing
    assert taken[0] == Escalation(reason="I want a refund, urgency 3", urgency=3)


async def test_tools_come_before_handoffs() -> None:
    other = Agent(name="Weather", handoff_description="Also knows the weather")
    agent = Agent(name="Triage", tools=[get_weather], handoffs=[other])
    result = await run(agent, "weather in Rome")
    assert names(result) == ["get_weather"]
    assert result.last_agent is agent


def two_that_hand_to_each_other() -> tuple[Agent[Any], Agent[Any]]:
    billing = Agent[Any](name="Billing", tools=[get_time])
    triage = Agent[Any](name="Triage", handoffs=[billing])
    billing.handoffs = [handoff(triage)]
    return triage, billing


async def test_a_message_is_handed_off_once_and_then_answered() -> None:
    triage, billing = two_that_hand_to_each_other()
    result = await run(triage, "billing or triage, and what time is it?")
    assert names(result) == ["transfer_to_billing", "get_time"]
    assert result.last_agent is billing
    assert "noon" in result.final_output
    echoed = await run(triage, "billing or triage?")
    assert names(echoed) == ["transfer_to_billing"]
    assert "billing or triage?" in echoed.final_output


@pytest.mark.parametrize(
    "config", [{"nest_handoff_history": True}, {"handoff_input_filter": handoff_filters.remove_all_tools}]
)
async def test_a_handoff_may_change_the_history(config: dict[str, Any]) -> None:
    billing = Agent(name="Billing", tools=[get_time])
    result = await run(Agent(name="Triage", handoffs=[billing]), "billing", **config)
    assert result.last_agent is billing
    assert result.final_output


@dataclass
class Place:
    city: str
    days: int
    note: str | None = None


class Forecast(BaseModel):
    summary: str
    degrees: float
    unit: Literal["celsius", "fahrenheit"]


@pytest.mark.parametrize(
    ("output_type", "text", "expected"),
    [
        (Place, "4 days in Lima", Place("Lima", 4)),
        (list[str], "apples, pears", ["apples, pears"]),
        (list[float], "1 and 2.5", [1, 2.5]),
        (int, "Count to 7", 7),
        (bool, "Is it so?", False),
        (Literal["urgent", "spam"], "this is spam", "spam"),
        (AgentOutputSchema(dict[str, int], strict_json_schema=False), "anything", {}),
    ],
)
async def test_an_output_type_is_filled_from_the_message(output_type: Any, text: str, expected: Any) -> None:
    assert (await run(Agent(name="Typed", output_type=output_type), text)).final_output == expected


async def test_an_output_type_is_filled_from_what_a_tool_returned() -> None:
    agent = Agent(name="Typed", tools=[get_weather], output_type=Forecast)
    result = await run(agent, "The weather in Paris in fahrenheit")
    expected = Forecast(summary="Sunny in Paris, 20 degrees fahrenheit", degrees=20, unit="fahrenheit")
    assert result.final_output == expected


class Picky(AgentOutputSchemaBase):
    """An author's own output type, with a condition that its schema does not tell."""

    def is_plain_text(self) -> bool:
        return False

    def name(self) -> str:
        return "picky"

    def json_schema(self) -> dict[str, Any]:
        return {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

    def is_strict_json_schema(self) -> bool:
        return False

    def validate_json(self, json_str: str) -> Any:
        value = json.loads(json_str)["n"]
        if value > 5:
            raise ValueError("too large")
        return value


async def test_an_answer_that_its_type_refuses_is_replaced_by_the_plainest_one() -> None:
    assert (await run(Agent(name="Typed", output_type=Picky()), "take 99")).final_output == 1


def stream(
    model: OfflineModel, input: Any, tools: Sequence[Any] = (), handoffs: Sequence[Handoff[Any, Any]] = ()
) -> Any:
    return model.stream_response(None, input, ModelSettings(), list(tools), None, list(handoffs), ModelTracing.DISABLED)


@pytest.mark.parametrize(
    "odd",
    [
        "",
        [],
        [{"role": "system", "content": "Only this."}],
        [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}],
        [{"type": "function_call_output", "call_id": "x", "output": "{broken"}],
        [None, 3, {"role": "user", "content": {"a": 1}}, {"type": "reasoning", "summary": []}],
        [{"role": "user", "content": [None, 1, {"type": "input_text", "text": None}, {"type": 3}]}],
        [{"type": "function_call_output", "call_id": [], "output": [{"type": "input_image"}]}, {"role": 5}],
        [{"role": "assistant", "content": 7}, {"role": "user", "content": "\ud800"}],
    ],
)
async def test_odd_input_is_answered(odd: Any) -> None:
    events = [event async for event in stream(OfflineModel(), odd, [get_weather])]
    assert events[-1].response.output[0].content[0].text.encode()


async def test_images_are_not_seen() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}
    text = {"type": "input_text", "text": "Look!"}
    assert (
        "There is no text to answer."
        in (await run(Agent(name="Plain"), [{"role": "user", "content": [image]}])).final_output
    )
    assert "“Look!”" in (await run(Agent(name="Plain"), [{"role": "user", "content": [text, image]}])).final_output


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("[1, {'a': (1, 2)}]", "[1, {'a': (1, 2)}]"),
        ("", "nothing"),
        (
            [{"type": "input_text", "text": "one"}, {"type": "input_image"}, {"type": "input_text", "text": "two"}],
            "one",
        ),
    ],
)
async def test_any_output_of_a_tool_is_told(output: Any, told: str) -> None:
    items = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "name": "f", "call_id": "1", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": output},
    ]
    events = [event async for event in stream(OfflineModel(), items)]
    assert f"The tool `f` returned: {told}" in events[-1].response.output[0].content[0].text


async def test_an_output_without_its_call_is_told() -> None:
    events = [
        e async for e in stream(OfflineModel(), [{"type": "function_call_output", "call_id": "1", "output": "out"}])
    ]
    assert "returned: out" in events[-1].response.output[0].content[0].text


def test_a_provider_has_one_model() -> None:
    provider = OfflineProvider()
    assert provider.get_model(None) is provider.get_model("gpt-4.1")
