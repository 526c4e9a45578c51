"""Mistakes that would fail every run of an agent are reported at load time."""

from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from agents import (
    Agent,
    AgentOutputSchema,
    GuardrailFunctionOutput,
    RunContextWrapper,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
)
from agents.tool_context import ToolContext
from pydantic import BaseModel

from gateway_core import Principal, RunContext
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


@dataclass
class Both(HasDefaults):
    more: str = ""


class Plain:
    def __init__(self):
        self.user = "plain"


class Settings(BaseModel):
    user: str = "model"


def tool_for(type_):
    def look(context: RunContextWrapper[type_], text: str) -> str:
        """Look."""
        return f"{type(context.context).__name__} {text}"

    return function_tool(look)


def instructions_for(type_):
    def instructions(context: RunContextWrapper[type_], agent: Agent[type_]) -> str:
        return "Help."

    return instructions


def guardrail_for(type_, decorator):
    async def guard(context: RunContextWrapper[type_], agent: Any, data: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    return decorator(guard)


def tool_context_tool(type_):
    def look(context: ToolContext[type_]) -> str:
        """Look."""
        return ""

    return function_tool(look)


@pytest.mark.parametrize(
    ("agent", "created"),
    [
        (Agent(name="x", tools=[tool_for(HasDefaults)]), HasDefaults),
        (Agent(name="x", tools=[tool_for(Settings)]), Settings),
        (Agent(name="x", tools=[tool_for(Plain)]), Plain),
        (Agent(name="x", tools=[tool_for(Plain | None)]), Plain),
        (Agent(name="x", tools=[tool_for(dict)]), dict),
        (Agent(name="x", tools=[tool_for(dict[str, Any])]), dict),
        (Agent(name="x", tools=[tool_for(HasDefaults), tool_for(Both), fine, tool_for(Any)]), Both),
        (Agent(name="x", tools=[tool_context_tool(Plain)]), Plain),
        (Agent(name="x", instructions=instructions_for(Plain)), Plain),
        (Agent(name="x", input_guardrails=[guardrail_for(Plain, input_guardrail)]), Plain),
        (Agent(name="x", output_guardrails=[guardrail_for(Plain, output_guardrail)]), Plain),
        (Agent(name="x", handoffs=[Agent(name="y", tools=[tool_for(Plain)])]), Plain),
        (Agent(name="x", handoffs=[handoff(Agent[Plain](name="y"))]), Plain),
        (Agent[Plain](name="x", tools=[tool_for(Needs)]), Plain),
        (Agent(name="x", tools=[tool_for(Any), fine]), RunContext),
        (Agent(name="x", tools=[tool_for(RunContext)]), RunContext),
    ],
)
async def test_the_context_is_created_from_the_types_of_the_agents_functions(agent, created):
    async with gateway_in_memory({"X": agent}) as g:
        served = g.gateway.catalog.agents["X"]
        assert served.warnings == ()
        context = served.runnable.context_for(RunContext("r", Principal("someone"), "X"))
        assert type(context) is created


@pytest.mark.parametrize(
    ("agent", "named"),
    [
        (Agent(name="x", tools=[tool_for(Needs)]), "its context type Needs cannot be created"),
        (Agent(name="x", instructions=instructions_for(Named)), "its context type Named cannot be created"),
        (Agent(name="x", handoffs=[Agent(name="y", tools=[tool_for(Answer)])]), "its context type Answer"),
        (Agent(name="x", tools=[tool_for(Needs), tool_for(Plain)]), "several context types (Needs, Plain)"),
    ],
)
async def test_a_context_that_only_the_authors_script_creates_is_a_warning(agent, named):
    async with gateway_in_memory({"X": agent}) as g:
        [warning] = g.gateway.catalog.agents["X"].warnings
    assert named in warning
    assert warning.endswith("define `build_context(run)`")
