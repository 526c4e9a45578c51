"""The output of a tool that ends a run is JSON for the client, in both APIs, streamed or not."""

import dataclasses
import json

import pydantic
import pytest
from agents import Agent, StopAtTools, ToolOutputText, ToolsToFinalOutputResult, function_tool

from gateway_core.testing import call, gateway_in_memory, script


@dataclasses.dataclass
class City:
    name: str


class Weather(pydantic.BaseModel):
    cities: list[City]
    dry: bool


VALUES = {
    "dict": ({"dry": True, "none": None}, {"dry": True, "none": None}),
    "list": ([City("Oslo"), "x"], [{"name": "Oslo"}, "x"]),
    "model": (Weather(cities=[City("Oslo")], dry=True), {"cities": [{"name": "Oslo"}], "dry": True}),
    "dataclass": (City("Oslo"), {"name": "Oslo"}),
}
BEHAVIORS = {
    "first": "stop_on_first_tool",
    "named": StopAtTools(stop_at_tool_names=["look"]),
    "own": lambda _, results: ToolsToFinalOutputResult(is_final_output=True, final_output=results[0].output),
}


async def answers(value, behavior):
    """The texts of both APIs, streamed and not."""

    @function_tool
    def look():
        """Look."""
        return value

    agent = Agent(name="x", tools=[look], tool_use_behavior=behavior, model=script(*[call("look")] * 4))
    messages = [{"role": "user", "content": "x"}]
    async with gateway_in_memory({"X": agent}) as g:
        chat = g.openai.chat.completions
        yield (await chat.create(model="X", messages=messages)).choices[0].message.content
        chunks = [chunk async for chunk in await chat.create(model="X", messages=messages, stream=True)]
        yield "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        yield (await g.openai.responses.create(model="X", input="x")).output_text
        stream = await g.openai.responses.create(model="X", input="x", stream=True)
        yield [event async for event in stream][-1].response.output_text


@pytest.mark.parametrize("behavior", BEHAVIORS)
@pytest.mark.parametrize("name", VALUES)
async def test_the_output_of_the_last_tool_is_json(name, behavior):
    value, expected = VALUES[name]
    async for text in answers(value, BEHAVIORS[behavior]):
        assert json.loads(text) == expected


@pytest.mark.parametrize("value", ["18 C", ToolOutputText(text="18 C")])
async def test_the_text_of_the_last_tool_is_text(value):
    async for text in answers(value, "stop_on_first_tool"):
        assert text == "18 C"
