"""Patches functions of the SDK for the process: the check for changed tools, a turn's model, final outputs, and more.

At each turn, the SDK compares the tools of an agent across all of its active runs. With 1,000 runs, this takes 1 ms,
five times. While no difference was found, all runs have the same tools, so a comparison with one of them is sufficient.

The SDK asks no model provider for an agent whose model is an object, so only a patch can decorate such a model. The
tools of a sandbox and of a client exist only during a run: the former in an agent object that the SDK shows to no hook,
the latter in none, because a run must not change its agent. If a tool's output is the answer (`tool_use_behavior`), the
SDK converts it with `str`, so that a client reads Python's notation of an object.
"""

import dataclasses
import functools
import operator
from collections.abc import Awaitable, Callable
from typing import Any

from agents import Agent, Model, RunConfig, Tool
from agents.run_internal import agent_tool_configuration as _checks
from agents.run_internal import run_loop as _runs
from agents.run_internal import turn_resolution as _turns

Decorate = Callable[[Model, Agent[Any], RunConfig], Model]


Complete = Callable[[Agent[Any], list[Tool]], list[Tool]]


def install(decorate: Decorate, complete: Complete, as_text: Callable[[Any], str]) -> None:
    """Install the patches for the process. Idempotent.

    Args:
        decorate: Returns the model to use for a turn, from the one that the SDK has chosen.
        complete: Returns the tools of an agent for a turn, from those that the SDK has collected.
        as_text: Converts an output of a tool that is the answer of an agent without an output type.
    """
    if not isinstance(_checks._observe_tools, _Observing):
        _checks._observe_tools = _Observing(_checks._observe_tools)
    if not isinstance(_runs.get_model, _Decorating):
        _runs.get_model = _Decorating(_runs.get_model, decorate)
    if not hasattr(Agent.get_all_tools, "agent_gateway"):
        Agent.get_all_tools = _completing(Agent.get_all_tools, complete)  # type: ignore[method-assign]
    if not isinstance(_turns.check_for_final_output_from_tools, _FinalText):
        _turns.check_for_final_output_from_tools = _FinalText(_turns.check_for_final_output_from_tools, as_text)


def _completing(get_all_tools: Any, complete: Complete) -> Any:
    @functools.wraps(get_all_tools)
    async def completed(self: Any, run_context: Any) -> list[Tool]:
        return complete(self, await get_all_tools(self, run_context))

    vars(completed)["agent_gateway"] = True
    return completed


class _Decorating:
    """Chooses a turn's model as the SDK does, and decorates it.

    Args:
        choose: The SDK's function.
        decorate: Decorates the model.
    """

    def __init__(self, choose: Callable[[Agent[Any], RunConfig], Model], decorate: Decorate) -> None:
        self._choose = choose
        self._decorate = decorate

    def __call__(self, agent: Agent[Any], run_config: RunConfig) -> Model:
        return self._decorate(self._choose(agent, run_config), agent, run_config)


class _FinalText:
    """Converts a final output to text before the SDK does.

    Args:
        check: The SDK's function, which returns whether the output of a tool is final.
        as_text: Converts the output.
    """

    def __init__(self, check: Callable[..., Awaitable[Any]], as_text: Callable[[Any], str]) -> None:
        self._check = check
        self._as_text = as_text

    async def __call__(self, agent: Any, *rest: Any, **named: Any) -> Any:
        found = await self._check(agent, *rest, **named)
        if found.is_final_output and agent.output_type in (None, str) and found.final_output is not None:
            return dataclasses.replace(found, final_output=self._as_text(found.final_output))
        return found


class _Observing:
    """Compares with the oldest run only, unless that run has recorded a difference.

    A mark is set on all active runs, so the oldest one has every mark. If it is not marked as conflicted, each later
    run was compared with it and has the same tools.

    Args:
        whole: The SDK's function, which compares with all runs.
    """

    def __init__(self, whole: Callable[[list[Any], tuple[Any, ...]], None]) -> None:
        self._whole = whole

    def __call__(self, active: list[Any], tools: tuple[Any, ...]) -> None:
        if len(active) > 1:
            oldest = active[0]
            if oldest.conflicted or oldest.tools_assigned or not _same(oldest.initial_tools, tools):
                self._whole(active, tools)


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
