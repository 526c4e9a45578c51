"""Hosted tools, which only OpenAI's own servers run: what becomes of them at an upstream. It runs no tool."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents import FunctionTool, Tool

from gateway_core import origin_of, sdk_tool_name
from gateway_plugins.upstreams.settings import HOSTED_TOOLS


class HostedTools:
    """The hosted tools of the agents that ask one upstream.

    Args:
        substitutes: Gateway tools that take a hosted one's place, by the hosted one's name.
        drop: Told the name of each other one that is to be dropped, and may raise; `None` where all can be run.
    """

    def __init__(self, substitutes: Mapping[str, str], drop: Callable[[str], None] | None) -> None:
        self._substitutes = substitutes
        self._drop = drop

    def runnable(self, tools: Sequence[Tool]) -> list[Tool]:
        """The tools that can be run here: of a hosted one and its substitutes, one."""
        there = {origin_of(tool).name for tool in tools if isinstance(tool, FunctionTool)}
        return [tool for tool in tools if self._stays(tool, there)]

    def choice(self, chosen: str | None, tools: Sequence[Tool]) -> str | None:
        """The tool that a model must call, where the agent's author chose one that is not told of."""
        names = {tool.name for tool in tools}
        if chosen is None or chosen in names or chosen not in HOSTED_TOOLS:
            return chosen
        substitute = sdk_tool_name(self._substitutes.get(chosen, ""))
        return substitute if substitute in names else None

    def _stays(self, tool: Any, there: set[str | None]) -> bool:
        if isinstance(tool, FunctionTool):
            origin = origin_of(tool)
            return origin.instead_of is None or self._substitutes.get(origin.instead_of) == origin.name
        if self._substitutes.get(tool.name) in there:
            return False
        if self._drop is None:
            return True
        self._drop(tool.name)
        return False


def concerns_hosted(tools: Sequence[Tool]) -> bool:
    """Whether any of the tools is hosted, or put beside one that is."""
    return not all(isinstance(tool, FunctionTool) and origin_of(tool).instead_of is None for tool in tools)
