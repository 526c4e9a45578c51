"""Binds gateway tools to an agent, and passes each of its tools through the plugins once.

Binding happens before an agent's first run: the SDK fails every concurrent run of an agent whose tool list is replaced.
Later changes are made in place, on the tool objects. This module puts the authorization guard on each tool and MCP
server; `runs/tool_authorization.py` authorizes the calls.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agents import Agent, FunctionTool, Model
from attrs import evolve, field, frozen

from gateway_core.catalog.runnables import Runnable
from gateway_core.config.settings import Config
from gateway_core.config.values import did_you_mean
from gateway_core.errors import GatewayError, LoadError, PluginError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.sdk import compat
from gateway_core.tools.origin import ToolOrigin, mark_tool, origin_of
from gateway_core.tools.patterns import PatternSet, parse_pattern, split_name
from gateway_core.tools.references import (
    Wanted,
    gateway_tool_name,
    mark_wanted,
    sdk_tool_name,
    use_gateway_tool,
    wanted_of,
)
from gateway_core.types import AgentEntry, ServedAgent

UNKNOWN_TOOL = "unknown_tool"

_BINDING = "_agent_gateway_binding"

# Identifies a binder on the objects that it has handled. A number survives a deep copy of the object.
_binder_ids = itertools.count()

Guard = Callable[[Any, ToolOrigin], None]
"""Puts the authorization guard on a function tool or an MCP server."""


@frozen
class _Binding:
    """The state of an agent or a tool after binding. Stored on the object itself, because authors and the SDK copy
    both; immutable, so that a shallow copy shares no state with the original."""

    binders: frozenset[int] = frozenset()
    """The binders that have bound the agent, or passed the tool through the plugins."""
    is_gateway_tool: bool = False
    """For a tool: whether it replaces a reference to a gateway tool."""
    offered: FunctionTool | None = None
    """For a gateway tool: the offered tool that it does the work of; `None` while no plugin offers one."""
    groups: Mapping[str, frozenset[str]] = field(factory=dict)
    """For an agent: the members of each tool pattern when it was last resolved."""
    added: tuple[str, ...] = ()
    """For an agent: the tools that `[agents.NAME] tools` adds."""


def _binding_of(target: Any) -> _Binding:
    return vars(target).get(_BINDING) or _Binding()


def _set_binding(target: Any, **changes: Any) -> None:
    vars(target)[_BINDING] = evolve(_binding_of(target), **changes)


class ToolBinder:
    """Binds the tools of one gateway's agents.

    Args:
        hooks: Offers tools, and wraps them.
        config: The tools that operators add to agents.
        guard: Called once with each function tool and each MCP server of an agent, and its origin.
        report: Called with each tool that cannot be offered, and each unknown one that an agent requests at run time.
    """

    def __init__(self, hooks: Hooks, config: Config, guard: Guard, report: Callable[[GatewayError], None]) -> None:
        self._hooks = hooks
        self._config = config
        self._guard = guard
        self._report = report
        self._id = next(_binder_ids)
        self.offered: Mapping[str, FunctionTool] = {}
        """The tools that plugins offer, by the SDK's name."""

    def configure(self, config: Config) -> None:
        """Use another configuration. Agents whose added tools differ are loaded again."""
        self._config = config

    def refresh(self) -> None:
        """Collect the tools that plugins offer. Agents already served receive them through `rebind`."""
        offered: dict[str, FunctionTool] = {}
        for tool in self._hooks.offer_tools(self._report):
            if not isinstance(tool, FunctionTool):
                self._report(
                    PluginError(f"the tool {getattr(tool, 'name', tool)!r} is not a FunctionTool and cannot be offered")
                )
                continue
            offered.setdefault(tool.name, tool)
        self.offered = offered

    def bind(self, runnable: Runnable, entry: AgentEntry) -> list[str]:
        """Bind the tools of every agent that a run can reach.

        Replaces references to gateway tools, adds the operator's tools to the first agent, and lets the plugins wrap
        each tool. A shared agent, such as a handoff target of two others, is bound once.

        Returns:
            Warnings for the operator: one sentence for each optional tool that is missing, and for each pattern that
            matches no tool.

        Raises:
            LoadError: A required tool is missing.
        """
        missing = _Missing(self._hooks.explain_missing_tool)
        for position, agent in enumerate(runnable.agents):
            if self._is_bound(agent):
                self._rebind_agent(agent, entry, missing)
            else:
                self._bind_agent(agent, entry, missing, first=position == 0)
        missing.raise_for(entry, self._names())
        return missing.warnings()

    def rebind(self, served: ServedAgent) -> bool:
        """Update the gateway tools of a served agent in place. A tool that no plugin offers any more is disabled.

        Returns:
            Whether that suffices. If not, the agent must be loaded again: a tool pattern has new members, or the
            operator adds other tools than before.

        Raises:
            LoadError: A required tool is missing.
        """
        missing = _Missing(self._hooks.explain_missing_tool)
        complete = [self._rebind_agent(agent, served.entry, missing) for agent in served.runnable.agents]
        missing.raise_for(served.entry, self._names())
        return all(complete) and not self._added_changed(served)

    def _added_changed(self, served: ServedAgent) -> bool:
        tools = tuple(self._config.agent(served.id).tools)
        for agent in served.runnable.agents[:1]:
            before = _binding_of(agent).added
            # Recorded at once: a load that returns the same objects must not cause another load.
            _set_binding(agent, added=tools)
            return before != tools
        return False

    def bind_at_run(self, agent: Agent[Any], entry: AgentEntry) -> None:
        """Bind an agent that appears only at run time, or that received tools or MCP servers after it was bound.

        A copy of a bound agent carries its binding and may have other tools, so every tool is checked.
        """
        if self._is_bound(agent) and all(self._is_handled(tool) for tool in agent.tools):
            self._guard_servers(agent)
            return
        missing = _Missing(self._hooks.explain_missing_tool)
        self._bind_agent(agent, entry, missing, first=False)
        try:
            missing.raise_for(entry, self._names())
        except LoadError as error:
            error.agent_id = entry.id
            self._report(error)

    def wrap_transient(self, tool: FunctionTool, entry: AgentEntry) -> None:
        """Let the plugins change a tool that exists for one turn, such as an MCP server's; in place only."""
        binders = _binding_of(tool).binders
        if self._id not in binders:
            _set_binding(tool, binders=binders | {self._id})
            self._hooks.wrap_tool(tool, entry)

    def guard(self, tools: Iterable[Any]) -> None:
        """Put the guard on the function tools among tools that exist for one run."""
        for tool in tools:
            if isinstance(tool, FunctionTool) and not self._is_handled(tool):
                self._guard(tool, origin_of(tool))

    def describe(self, agents: Iterable[ServedAgent]) -> list[dict[str, Any]]:
        """The offered tools and the agents that use them, as JSON for operators."""
        users: dict[str, list[str]] = {name: [] for name in self.offered}
        for served in agents:
            for name in dict.fromkeys(_gateway_tools_of(served)):
                users.setdefault(name, []).append(served.id)
        return [
            {
                "name": gateway_tool_name(tool.name),
                "description": tool.description,
                "parameters": tool.params_json_schema,
                "source": origin_of(tool).source if _has_origin(tool) else "gateway",
                "server": origin_of(tool).server,
                "open": origin_of(tool).open,
                "agents": users[tool.name],
            }
            for tool in self.offered.values()
        ]

    def _is_bound(self, agent: Agent[Any]) -> bool:
        return self._id in _binding_of(agent).binders

    def _is_handled(self, tool: Any) -> bool:
        binding = _binding_of(tool)
        return self._id in binding.binders or binding.is_gateway_tool

    def _names(self) -> list[str]:
        return [gateway_tool_name(name) for name in self.offered]

    def _bind_agent(self, agent: Agent[Any], entry: AgentEntry, missing: "_Missing", *, first: bool) -> None:
        _set_binding(agent, binders=_binding_of(agent).binders | {self._id})
        tools: list[Any] = []
        tool: Any
        for tool in agent.tools:
            wanted = wanted_of(tool)
            if wanted is None:
                tools.append(self._wrapped(tool, entry))
            elif _binding_of(tool).is_gateway_tool:  # bound by another gateway in this process
                self._bind_again(tool, wanted, entry, missing)
                tools.append(tool)
            else:
                tools += self._resolve(wanted, tool, agent, entry, missing, tools)
        if first:
            added = tuple(self._config.agent(entry.id).tools)
            _set_binding(agent, added=added)
            for name in added:
                reference, table = use_gateway_tool(name), f"[agents.{entry.id}] tools"
                tools += self._resolve(Wanted(name), reference, agent, entry, missing, tools, requested_by=table)
        if not isinstance(agent.model, Model):
            for tool in [tool for tool in tools if not isinstance(tool, FunctionTool)]:
                for name in self._hooks.substitutes(tool, entry):
                    wanted = Wanted(name, optional=True, instead_of=tool.name)
                    tools += self._resolve(wanted, use_gateway_tool(name), agent, entry, missing, tools)
        if len(tools) != len(agent.tools) or any(new is not old for new, old in zip(tools, agent.tools, strict=True)):
            agent.tools = tools
        self._guard_servers(agent)

    def _guard_servers(self, agent: Agent[Any]) -> None:
        for server in agent.mcp_servers:
            self._guard(server, ToolOrigin("mcp", server=server.name))

    def _wrapped(self, tool: Any, entry: AgentEntry) -> Any:
        if self._id in _binding_of(tool).binders:
            return tool
        wrapped = self._hooks.wrap_tool(tool, entry)
        for each in (tool, wrapped):
            _set_binding(each, binders=_binding_of(each).binders | {self._id})
        if isinstance(wrapped, FunctionTool):
            self._guard(wrapped, origin_of(tool))
        return wrapped

    def _resolve(
        self,
        wanted: Wanted,
        reference: FunctionTool,
        agent: Agent[Any],
        entry: AgentEntry,
        missing: "_Missing",
        present: Iterable[Any],
        *,
        requested_by: str | None = None,
    ) -> list[FunctionTool]:
        """The tools that a reference stands for, made for this agent."""
        taken = _names(present)
        if wanted.is_pattern:
            members = self._members(wanted.name)
            if not members:
                missing.patterns[wanted.name] = None
            _set_binding(agent, groups={**_binding_of(agent).groups, wanted.name: members})
            return [self._bound(Wanted(name, optional=True), entry) for name in sorted(members) if name not in taken]
        if sdk_tool_name(wanted.name) not in self.offered:
            missing.add(wanted, requested_by)
            # Disabled, so no model sees it; it keeps the place of a tool that a plugin may offer later.
            placeholder = copy.copy(reference)
            placeholder.is_enabled = False
            vars(placeholder)[_BINDING] = _Binding(is_gateway_tool=True)
            return [placeholder]
        tool = self._bound(wanted, entry)
        return [tool] if tool.name not in taken else []

    def _members(self, pattern: str) -> frozenset[str]:
        patterns = PatternSet([(pattern, parse_pattern(gateway_tool_name(pattern)))])
        return frozenset(name for name in self.offered if patterns.first(split_name(gateway_tool_name(name))))

    def _bound(self, wanted: Wanted, entry: AgentEntry) -> FunctionTool:
        """A copy of the offered tool for this agent, wrapped by the plugins."""
        offered = self.offered[sdk_tool_name(wanted.name)]
        origin = origin_of(offered) if _has_origin(offered) else ToolOrigin("gateway")
        tool = copy.copy(offered)
        tool.name = wanted.rename or offered.name
        tool.description = wanted.description or offered.description
        mark_tool(tool, evolve(origin, name=gateway_tool_name(offered.name), instead_of=wanted.instead_of))
        vars(tool)[_BINDING] = _Binding()
        wrapped = self._wrapped(tool, entry)
        mark_tool(wrapped, origin_of(tool))
        mark_wanted(wrapped, wanted)
        _set_binding(wrapped, is_gateway_tool=True, offered=offered)
        bound: FunctionTool = wrapped
        return bound

    def _rebind_agent(self, agent: Agent[Any], entry: AgentEntry, missing: "_Missing") -> bool:
        """Update an agent's gateway tools. Returns whether no tool pattern has new members."""
        tool: Any
        for tool in agent.tools:
            if (wanted := wanted_of(tool)) is not None:
                self._bind_again(tool, wanted, entry, missing)
        groups = _binding_of(agent).groups
        joined = {pattern: self._members(pattern) - members for pattern, members in groups.items()}
        # Recorded at once: a load that returns the same objects must not cause another load.
        _set_binding(agent, groups={pattern: members | joined[pattern] for pattern, members in groups.items()})
        return not any(joined.values())

    def _bind_again(self, tool: FunctionTool, wanted: Wanted, entry: AgentEntry, missing: "_Missing") -> None:
        offered = self.offered.get(sdk_tool_name(wanted.name))
        if offered is None:
            missing.add(wanted, None)
            tool.is_enabled = False
            _set_binding(tool, is_gateway_tool=True, offered=None)
        elif _binding_of(tool).offered is not offered:
            fresh = vars(self._bound(wanted, entry))
            vars(tool).clear()
            vars(tool).update(fresh)
            compat.bind_invoker(tool)


class _Missing:
    """The referenced tools that no plugin offers.

    Args:
        explain: Returns why a tool is not offered, if that is known.
    """

    def __init__(self, explain: Callable[[str], str | None]) -> None:
        self._explain = explain
        self.patterns: dict[str, None] = {}
        self._optional: dict[str, None] = {}
        self._required: dict[str, str | None] = {}

    def add(self, wanted: Wanted, requested_by: str | None) -> None:
        if wanted.optional:
            self._optional[wanted.name] = None
        else:
            self._required.setdefault(wanted.name, requested_by)

    def warnings(self) -> list[str]:
        """Return a sentence for each optional tool and for each pattern."""
        found = [
            f"the optional gateway tool '{name}' does not exist{self._because(name)}; the agent runs without it"
            for name in self._optional
        ]
        return found + [f"no gateway tool matches '{name}'{self._because(name)}" for name in self.patterns]

    def raise_for(self, entry: AgentEntry, known: Iterable[str]) -> None:
        """Raise `LoadError` for the first required tool that is missing."""
        for name, requested_by in self._required.items():
            line, text = (None, None) if requested_by else _line_of(name, entry.source)
            why = self._explain(gateway_tool_name(name))
            raise LoadError(
                f"the gateway tool '{name}' is not available: {why}" if why else f"unknown gateway tool '{name}'",
                source=requested_by or entry.source,
                hint=None if why else did_you_mean(gateway_tool_name(name), known),
                code=UNKNOWN_TOOL,
                line=line,
                source_line=text,
            )

    def _because(self, name: str) -> str:
        why = self._explain(gateway_tool_name(name))
        return f" ({why})" if why else ""


def _line_of(name: str, source: str) -> tuple[int | None, str | None]:
    """The line of an agent's file that references a tool: its number, counted from 1, and its text."""
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError):
        lines = []
    found = ((n, line.strip()) for n, line in enumerate(lines, 1) if f'"{name}"' in line or f"'{name}'" in line)
    return next(found, (None, None))


def _has_origin(tool: Any) -> bool:
    return origin_of(tool) != ToolOrigin()


def _gateway_tools_of(served: ServedAgent) -> Iterator[str]:
    for agent in served.runnable.agents:
        for tool in agent.tools:
            if (offered := _binding_of(tool).offered) is not None:
                yield offered.name


def _name(tool: Any) -> str | None:
    name: str | None = getattr(tool, "name", None)
    return name


def _names(tools: Iterable[Any]) -> set[str | None]:
    return {_name(tool) for tool in tools}
