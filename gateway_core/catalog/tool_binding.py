"""An agent that was just loaded gets the gateway's tools, and each of its tools goes by the plugins once.

It governs no call; it puts each tool and MCP server through `govern` once. Happens before an agent's first run: the SDK
fails every concurrent run of an agent whose list of tools is replaced. What changes later changes in place, on the
tool objects.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
from agents import Agent, FunctionTool, Model

from gateway_core.catalog.runnables import Runnable
from gateway_core.config.converter import did_you_mean
from gateway_core.config.settings import Config
from gateway_core.errors import GatewayError, LoadError, PluginError
from gateway_core.hooks.dispatch import Hooks
from gateway_core.tools.origin import ToolOrigin, mark_tool, origin_of
from gateway_core.tools.references import (
    Wanted,
    gateway_tool_name,
    mark_wanted,
    matches,
    sdk_tool_name,
    use_gateway_tool,
    wanted_of,
)
from gateway_core.types import AgentEntry, ServedAgent

UNKNOWN_TOOL = "unknown_tool"

_AGENT_MARK = "_agent_gateway_equipped_by"
_TOOL_MARK = "_agent_gateway_wrapped_by"
_BOUND_MARK = "_agent_gateway_bound_to"
_GROUPS_MARK = "_agent_gateway_groups"
_ADDED_MARK = "_agent_gateway_added"

# Marks hold numbers: they must survive a deep copy of an agent, and never be taken for another gateway's.
_numbers = itertools.count()

Govern = Callable[[Any, ToolOrigin], None]


class ToolBinder:
    """Equips the agents of one gateway.

    Args:
        hooks: Asked for tools, and to wrap them.
        config: Which tools operators add to which agents.
        govern: Called once with each function tool, and each MCP server of an agent's own, and where it comes from.
        report: Told of tools that cannot be offered, and of unknown ones that agents ask for while they run.
    """

    def __init__(self, hooks: Hooks, config: Config, govern: Govern, report: Callable[[GatewayError], None]) -> None:
        self._hooks = hooks
        self._config = config
        self._govern = govern
        self._report = report
        self._number = next(_numbers)
        self._offered: dict[str, FunctionTool] = {}

    def configure(self, config: Config) -> None:
        """Take another configuration. Agents to which operators now add other tools are loaded again."""
        self._config = config

    def refresh(self) -> None:
        """Ask which tools there are now. Agents that are served already get them by `rebind`."""
        offered: dict[str, FunctionTool] = {}
        for tool in self._hooks.offer_tools(self._report):
            if not isinstance(tool, FunctionTool):
                self._report(PluginError(f"the tool {getattr(tool, 'name', tool)!r} cannot be offered by name"))
                continue
            offered.setdefault(tool.name, tool)
        self._offered = offered

    def equip(self, runnable: Runnable, entry: AgentEntry) -> list[str]:
        """Bind the gateway tools that its agents ask for, add those of operators and plugins to the first agent, and
        let the plugins wrap each tool of every agent that it can reach.

        An agent that is shared, such as an installed package's or a handoff target of two others, is equipped once.

        Returns:
            What an operator should know: one sentence for each optional tool that is not there.

        Raises:
            LoadError: A tool that an agent asks for is not there.
        """
        missing = _Missing()
        for position, agent in enumerate(runnable.agents):
            if self._equipped(agent):
                self._rebind_agent(agent, entry, missing)
            else:
                self._equip_one(agent, entry, missing, first=position == 0)
        missing.raise_for(entry, self._names())
        return [f"there is no gateway tool '{name}', and it does without" for name in missing.optional]

    def rebind(self, served: ServedAgent) -> bool:
        """Give an agent that is served already the gateway's tools as they are now; tools that are gone it keeps, and
        no model is told of them.

        Returns:
            Whether that is all. If not, a group has new members, or operators add other tools than before, which only
            a freshly loaded agent can get.

        Raises:
            LoadError: A tool that it asks for is gone.
        """
        missing = _Missing()
        complete = [self._rebind_agent(agent, served.entry, missing) for agent in served.runnable.agents]
        missing.raise_for(served.entry, self._names())
        return all(complete) and not self._added_changed(served)

    def _added_changed(self, served: ServedAgent) -> bool:
        tools = self._config.agent(served.id).tools
        for agent in served.runnable.agents[:1]:
            before: tuple[str, ...] = vars(agent).get(_ADDED_MARK, ())
            # A reason to load again once, also where loading gives the same objects as before.
            vars(agent)[_ADDED_MARK] = tuple(tools)
            return before != tuple(tools)
        return False

    def adopt(self, agent: Agent[Any], entry: AgentEntry) -> None:
        """Equip an agent that appears only when it runs, or that was given tools or MCP servers since it was equipped.

        A copy of an equipped agent has its marks, and perhaps other tools: each tool is looked at.
        """
        if self._equipped(agent) and all(self._seen(tool) for tool in agent.tools):
            self._govern_servers(agent)
            return
        missing = _Missing()
        self._equip_one(agent, entry, missing, first=False)
        try:
            missing.raise_for(entry, self._names())
        except LoadError as error:
            error.agent_id = entry.id
            self._report(error)

    def wrap(self, tool: FunctionTool, entry: AgentEntry) -> None:
        """Let the plugins change a tool that was made for one turn, such as an MCP server's; in place only."""
        if self._number not in _marks(tool, _TOOL_MARK):
            _marks(tool, _TOOL_MARK).add(self._number)
            self._hooks.wrap_tool(tool, entry)

    def facts(self, agents: Iterable[ServedAgent]) -> list[dict[str, Any]]:
        """The tools on offer and who has them, as JSON for operators."""
        users: dict[str, list[str]] = {name: [] for name in self._offered}
        for served in agents:
            for name in dict.fromkeys(_gateway_tools_of(served)):
                users.setdefault(name, []).append(served.id)
        return [
            {
                "name": gateway_tool_name(tool.name),
                "description": tool.description,
                "parameters": tool.params_json_schema,
                "source": origin_of(tool).source if _is_marked(tool) else "gateway",
                "server": origin_of(tool).server,
                "open": origin_of(tool).open,
                "agents": users[tool.name],
            }
            for tool in self._offered.values()
        ]

    def _equipped(self, agent: Agent[Any]) -> bool:
        return self._number in vars(agent).get(_AGENT_MARK, ())

    def _seen(self, tool: Any) -> bool:
        marks = vars(tool)
        return self._number in marks.get(_TOOL_MARK, ()) or _BOUND_MARK in marks

    def _names(self) -> list[str]:
        return [gateway_tool_name(name) for name in self._offered]

    def _equip_one(self, agent: Agent[Any], entry: AgentEntry, missing: "_Missing", *, first: bool) -> None:
        _marks(agent, _AGENT_MARK).add(self._number)
        tools: list[Any] = []
        tool: Any
        for tool in agent.tools:
            wanted = wanted_of(tool)
            if wanted is None:
                tools.append(self._wrapped(tool, entry))
            elif _BOUND_MARK in vars(tool):  # by another gateway in this process
                self._bind_again(tool, wanted, entry, missing)
                tools.append(tool)
            else:
                tools += self._resolve(wanted, tool, agent, entry, missing, tools)
        if first:
            vars(agent)[_ADDED_MARK] = tuple(self._config.agent(entry.id).tools)
            for name in self._config.agent(entry.id).tools:
                wanted, stand_in = Wanted(name), use_gateway_tool(name)
                tools += self._resolve(
                    wanted, stand_in, agent, entry, missing, tools, asked_by=f"[agents.{entry.id}] tools"
                )
        if not isinstance(agent.model, Model):
            for tool in [tool for tool in tools if not isinstance(tool, FunctionTool)]:
                for name in self._hooks.substitutes(tool, entry):
                    wanted = Wanted(name, optional=True, instead_of=tool.name)
                    tools += self._resolve(wanted, use_gateway_tool(name), agent, entry, missing, tools)
        if len(tools) != len(agent.tools) or any(new is not old for new, old in zip(tools, agent.tools, strict=True)):
            agent.tools = tools
        self._govern_servers(agent)

    def _govern_servers(self, agent: Agent[Any]) -> None:
        for server in agent.mcp_servers:
            self._govern(server, ToolOrigin("mcp", server=server.name))

    def _wrapped(self, tool: Any, entry: AgentEntry) -> Any:
        if self._number in _marks(tool, _TOOL_MARK):
            return tool
        wrapped = self._hooks.wrap_tool(tool, entry)
        _marks(tool, _TOOL_MARK).add(self._number)
        _marks(wrapped, _TOOL_MARK).add(self._number)
        if isinstance(wrapped, FunctionTool):
            self._govern(wrapped, origin_of(tool))
        return wrapped

    def _resolve(
        self,
        wanted: Wanted,
        stand_in: FunctionTool,
        agent: Agent[Any],
        entry: AgentEntry,
        missing: "_Missing",
        present: Iterable[Any],
        *,
        asked_by: str | None = None,
    ) -> list[FunctionTool]:
        """The tools that are asked for, made for this agent."""
        taken = _names(present)
        if wanted.is_pattern:
            members = self._members(wanted.name)
            vars(agent).setdefault(_GROUPS_MARK, {})[wanted.name] = members
            return [self._bound(Wanted(name, optional=True), entry) for name in sorted(members) if name not in taken]
        if sdk_tool_name(wanted.name) not in self._offered:
            missing.add(wanted, asked_by)
            # No model is told of it; its place is kept, for a tool that comes later.
            place = copy.copy(stand_in)
            place.is_enabled = False
            vars(place)[_BOUND_MARK] = None
            return [place]
        tool = self._bound(wanted, entry)
        return [tool] if tool.name not in taken else []

    def _members(self, pattern: str) -> frozenset[str]:
        return frozenset(name for name in self._offered if matches(pattern, gateway_tool_name(name)))

    def _bound(self, wanted: Wanted, entry: AgentEntry) -> FunctionTool:
        """A tool of this agent's own that does what the offered one does, as plugins want it for this agent."""
        offered = self._offered[sdk_tool_name(wanted.name)]
        origin = origin_of(offered) if _is_marked(offered) else ToolOrigin("gateway")
        tool = copy.copy(offered)
        tool.name = wanted.rename or offered.name
        tool.description = wanted.description or offered.description
        mark_tool(tool, attrs.evolve(origin, name=gateway_tool_name(offered.name), instead_of=wanted.instead_of))
        vars(tool)[_TOOL_MARK] = set()
        wrapped = self._wrapped(tool, entry)
        mark_tool(wrapped, origin_of(tool))
        mark_wanted(wrapped, wanted)
        vars(wrapped)[_BOUND_MARK] = offered
        bound: FunctionTool = wrapped
        return bound

    def _rebind_agent(self, agent: Agent[Any], entry: AgentEntry, missing: "_Missing") -> bool:
        tool: Any
        for tool in agent.tools:
            if (wanted := wanted_of(tool)) is not None:
                self._bind_again(tool, wanted, entry, missing)
        groups: dict[str, frozenset[str]] = vars(agent).get(_GROUPS_MARK, {})
        joined = {pattern: self._members(pattern) - members for pattern, members in groups.items()}
        # Each newcomer is a reason to load again once, also where loading gives the same objects as before.
        groups.update({pattern: groups[pattern] | new for pattern, new in joined.items()})
        return not any(joined.values())

    def _bind_again(self, tool: FunctionTool, wanted: Wanted, entry: AgentEntry, missing: "_Missing") -> None:
        offered = self._offered.get(sdk_tool_name(wanted.name))
        if offered is None:
            missing.add(wanted, None)
            tool.is_enabled = False
            vars(tool)[_BOUND_MARK] = None
        elif vars(tool)[_BOUND_MARK] is not offered:
            fresh = vars(self._bound(wanted, entry))
            vars(tool).clear()
            vars(tool).update(fresh)
            # How the SDK ties a copied tool's failure handling to the copy.
            bind = getattr(tool.on_invoke_tool, "__agents_bind_function_tool__", None)
            tool.on_invoke_tool = bind(tool) if bind is not None else tool.on_invoke_tool


class _Missing:
    """The tools that are not there."""

    def __init__(self) -> None:
        self.optional: dict[str, None] = {}
        self._needed: dict[str, str | None] = {}

    def add(self, wanted: Wanted, asked_by: str | None) -> None:
        if wanted.optional:
            self.optional[wanted.name] = None
        else:
            self._needed.setdefault(wanted.name, asked_by)

    def raise_for(self, entry: AgentEntry, known: Iterable[str]) -> None:
        """Raise for the first tool that an agent cannot do without."""
        for name, asked_by in self._needed.items():
            line, text = (None, None) if asked_by else _line_of(name, entry.source)
            raise LoadError(
                f"there is no gateway tool '{name}'",
                source=asked_by or entry.source,
                hint=did_you_mean(gateway_tool_name(name), known),
                code=UNKNOWN_TOOL,
                line=line,
                source_line=text,
            )


def _line_of(name: str, source: str) -> tuple[int | None, str | None]:
    """Where in its file an agent asks for a tool."""
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    except (OSError, UnicodeDecodeError):
        lines = []
    found = ((n, line.strip()) for n, line in enumerate(lines, 1) if f'"{name}"' in line or f"'{name}'" in line)
    return next(found, (None, None))


def _marks(thing: Any, mark: str) -> set[int]:
    marks: set[int] = vars(thing).setdefault(mark, set())
    return marks


def _is_marked(tool: Any) -> bool:
    return origin_of(tool) != ToolOrigin()


def _gateway_tools_of(served: ServedAgent) -> Iterator[str]:
    for agent in served.runnable.agents:
        for tool in agent.tools:
            if (offered := vars(tool).get(_BOUND_MARK)) is not None:
                yield offered.name


def _name(tool: Any) -> str | None:
    name: str | None = getattr(tool, "name", None)
    return name


def _names(tools: Iterable[Any]) -> set[str | None]:
    return {_name(tool) for tool in tools}
