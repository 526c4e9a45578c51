"""Offers a client's tools to the agent of one run. Their calls pause the run, and the client's results resume it.

The tools are added to those that the agent has in each turn, so neither the agent nor its tools change. Each requires
approval, which makes the SDK pause the run at a call; a tool with a result is approved, and returns the result. No
policy applies to the calls, because the gateway does not execute them.
"""

from collections.abc import Iterable
from typing import Any

from agents import Agent, FunctionTool, Handoff

from gateway_core.sdk import compat
from gateway_core.types import ClientTool, ClientToolOffer


class ClientFunctionTool(FunctionTool):
    """A tool that runs in the client."""


class ClientTools:
    """The client's tools in one run.

    Args:
        agent: The agent that the run starts with; no other agent has the tools.
        offer: The tools of the request.
    """

    def __init__(self, agent: Agent[Any], offer: ClientToolOffer) -> None:
        self.offer = offer
        self.results: dict[str, str] = {}
        """The client's results, by the id of the call."""
        self.conflicts: list[str] = []
        """Names of tools that are not offered, because the agent has tools with these names."""
        self._agent = agent
        self._tools = {tool.name: self._function_tool(tool) for tool in offer.tools}
        self._definitions = {tool.name: tool for tool in offer.tools}
        self._offered = frozenset(self._tools)

    def restore(self, tools: Iterable[ClientTool]) -> None:
        """Add tools of an earlier request whose calls have results, but which this request does not offer."""
        for tool in tools:
            if tool.name not in self._tools:
                self._tools[tool.name] = self._function_tool(tool)
                self._definitions[tool.name] = tool

    def definition(self, name: str) -> ClientTool:
        """Return a tool as the client defined it."""
        return self._definitions[name]

    def complete(self, agent: Agent[Any], tools: list[Any]) -> list[Any]:
        """Return the tools of an agent in one turn, with the client's tools whose names it does not use itself."""
        agent = compat.public_agent(agent)
        if agent is not self._agent or not self._tools:
            return tools
        taken = {getattr(tool, "name", None) for tool in (*agent.tools, *tools)}
        for handoff in agent.handoffs:
            taken.add(handoff.tool_name if isinstance(handoff, Handoff) else Handoff.default_tool_name(handoff))
        self.conflicts += [name for name in self._tools if name in taken and name not in self.conflicts]
        return [*tools, *(tool for name, tool in self._tools.items() if name not in self.conflicts)]

    def owns(self, agent: Any, name: str | None) -> bool:
        """Whether the call of a tool by this name is one for the client."""
        return agent is self._agent and name in self._tools and name not in self.conflicts

    def visible(self, tools: list[Any]) -> list[Any]:
        """Return a turn's tools without those that this request does not offer."""
        return [tool for tool in tools if not isinstance(tool, ClientFunctionTool) or tool.name in self._offered]

    def settings(self, agent: Any) -> dict[str, Any]:
        """Return the model settings that the client's choice of a tool makes in a call of an agent."""
        offered = [name for name in self._offered if name not in self.conflicts]
        if agent is not self._agent or not offered:
            return {}
        choice = self.offer.choice
        settings = {
            "tool_choice": choice if choice in ("required", *offered) else None,
            "parallel_tool_calls": self.offer.parallel,
        }
        return {name: value for name, value in settings.items() if value is not None}

    def _function_tool(self, tool: ClientTool) -> ClientFunctionTool:
        async def result(context: Any, _: str) -> str:
            return self.results[context.tool_call_id]

        made = ClientFunctionTool(
            name=tool.name,
            description=tool.description,
            params_json_schema=tool.parameters,
            on_invoke_tool=result,
            strict_json_schema=False,
            needs_approval=True,
        )
        # Set afterwards: the SDK would rewrite the client's schema.
        made.strict_json_schema = tool.strict
        return made
