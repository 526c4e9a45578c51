"""Mistakes that would fail every run of an agent are reported at load time."""

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
    ("agent", "message", "hint"),
    [
        (Agent(name="x", tools=[plain]), "'x' has 'plain' in its tools, which is not a tool", "`@function_tool`"),
        (Agent(name="x", tools=[fine, OTHER]), "'x' has the agent 'other' in its tools", "`.as_tool("),
        (
            Agent(name="x", output_type=dict),
            "'x' has an output type that does not support a strict JSON schema",
            "declare all its fields",
        ),
        (
            Agent(name="x", instructions=lambda: "hi"),
            "'x' has an instructions function with the wrong parameters",
            "(context, agent)",
        ),
        (Agent(name="x", handoffs=[handoff(Agent(name="y", tools=[plain]))]), "'y' has 'plain'", "`@function_tool`"),
    ],
)
async def test_an_agent_that_cannot_run_is_broken(agent, message, hint):
    async with gateway_in_memory({"X": agent, "Y": Agent(name="y")}) as g:
        assert list(g.gateway.catalog.agents) == ["Y"]
        error = g.gateway.catalog.broken["X"].error
    assert message in error.message
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
class HasDefaults:
    user: str = ""


@pytest.mark.parametrize(
    ("agent", "warned"),
    [
        (Agent(name="x", output_type=Answer, instructions=lambda context, agent: "hi", tools=[fine]), False),
        (Agent(name="x", output_type=list[str]), False),
        (Agent(name="x", output_type=AgentOutputSchema(dict[str, Any], strict_json_schema=False)), False),
        (Agent[None](name="x"), False),
        (Agent[RunContext](name="x"), False),
        (Agent[HasDefaults](name="x"), False),
        (Agent[Answer](name="x"), True),
        (Agent[Needs](name="x"), True),
        (Agent[Named](name="x"), True),
    ],
)
async def test_an_agent_that_can_run_is_served_and_a_context_that_cannot_be_created_is_a_warning(agent, warned):
    async with gateway_in_memory({"X": agent}) as g:
        warnings = g.gateway.catalog.agents["X"].warnings
    assert [w for w in warnings if "`build_context(run)`" in w] == list(warnings)
    assert bool(warnings) == warned
