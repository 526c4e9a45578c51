"""What would fail each run of an agent is told when it is loaded."""

from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from agents import Agent, AgentOutputSchema, function_tool, handoff
from pydantic import BaseModel

from gateway_core import RunContext
from gateway_core.testing import gateway_in_memory

OTHER = Agent(name="other")


def plain(text: str) -> str:
    return text


@function_tool
def fine(text: str) -> str:
    """Fine."""
    return text


@pytest.mark.parametrize(
    ("agent", "told", "hint"),
    [
        (Agent(name="x", tools=[plain]), "'x' has 'plain' among its tools, which is none", "`@function_tool`"),
        (Agent(name="x", tools=[fine, OTHER]), "'x' has the agent 'other' among its tools", "`.as_tool("),
        (Agent(name="x", output_type=dict), "'x' has an output type without a strict schema", "name each field"),
        (
            Agent(name="x", instructions=lambda: "hi"),
            "'x' has instructions that the SDK cannot call",
            "(context, agent)",
        ),
        (Agent(name="x", handoffs=[handoff(Agent(name="y", tools=[plain]))]), "'y' has 'plain'", "`@function_tool`"),
    ],
)
async def test_what_cannot_run_is_broken(agent, told, hint):
    async with gateway_in_memory({"X": agent, "Y": Agent(name="y")}) as g:
        assert list(g.gateway.catalog.agents) == ["Y"]
        error = g.gateway.catalog.broken["X"].error
    assert told in error.message
    assert hint in error.hint
    assert error.code == "export"


class Answer(BaseModel):
    text: str


@dataclass
class Needs:
    user: str


class Named(Protocol):
    user: str


@dataclass
class Makes:
    user: str = ""


@pytest.mark.parametrize(
    ("agent", "warned"),
    [
        (Agent(name="x", output_type=Answer, instructions=lambda context, agent: "hi", tools=[fine]), False),
        (Agent(name="x", output_type=list[str]), False),
        (Agent(name="x", output_type=AgentOutputSchema(dict[str, Any], strict_json_schema=False)), False),
        (Agent[None](name="x"), False),
        (Agent[RunContext](name="x"), False),
        (Agent[Makes](name="x"), False),
        (Agent[Answer](name="x"), True),
        (Agent[Needs](name="x"), True),
        (Agent[Named](name="x"), True),
    ],
)
async def test_what_can_run_is_served_and_a_context_that_nobody_makes_is_noted(agent, warned):
    async with gateway_in_memory({"X": agent}) as g:
        warnings = g.gateway.catalog.agents["X"].warnings
    assert [w for w in warnings if "`build_context(run)`" in w] == list(warnings)
    assert bool(warnings) == warned
