"""Drops or substitutes hosted tools, which only OpenAI's own servers run, in calls to other upstreams."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents import FunctionTool, Tool

from gateway_core import origin_of, sdk_tool_name
from gateway_plugins.upstreams.settings import HOSTED_TOOLS


class HostedTools:
    """The handling of hosted tools at one upstream.

    Args:
        substitutes: Gateway tools that replace hosted tools, by name of the hosted tool.
        drop: Called with the name of each hosted tool that is dropped; it may raise. `None` if the upstream runs hosted
            tools.
    """

    def __init__(self, substitutes: Mapping[str, str], drop: Callable[[str], None] | None) -> None:
        self._substitutes = substitutes
        self._drop = drop

    def runnable(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return the tools that can run at this upstream: a hosted tool or its substitute, not both."""
        available = {origin_of(tool).name for tool in tools if isinstance(tool, FunctionTool)}
        return [tool for tool in tools if self._is_kept(tool, available)]

    def choice(self, chosen: str | None, tools: Sequence[Tool]) -> str | None:
        """Return the tool choice for the model, with a hosted tool replaced by its substitute.

        The result is `None` if the chosen hosted tool is dropped.
        """
        names = {tool.name for tool in tools}
        if chosen is None or chosen in names or chosen not in HOSTED_TOOLS:
            return chosen
        substitute = sdk_tool_name(self._substitutes.get(chosen, ""))
        return substitute if substitute in names else None

    def _is_kept(self, tool: Any, available: set[str | None]) -> bool:
        if isinstance(tool, FunctionTool):
            origin = origin_of(tool)
            return origin.instead_of is None or self._substitutes.get(origin.instead_of) == origin.name
        substitute = self._substitutes.get(tool.name)
        if substitute is not None and substitute in available:
            return False
        if self._drop is None:
            return True
        self._drop(tool.name)
        return False


def includes_hosted(tools: Sequence[Tool]) -> bool:
    """Whether any of the tools is hosted, or a substitute for a hosted tool."""
    return not all(isinstance(tool, FunctionTool) and origin_of(tool).instead_of is None for tool in tools)
