"""Resolves what a module, or the object of an entry point, exports: one runnable, or several agents of equal rank.

Exports are identified by type as well as by name. If a module exports no agent, the error names the places that create
one, and what to do. This module does not import modules, and calls no exported object except a factory.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from agents import Agent
from attrs import evolve, field, frozen

from gateway_core.catalog.agent_graph import neighbors
from gateway_core.catalog.chosen_export import Chosen, choose, contained
from gateway_core.catalog.missing_export import no_export, table_key
from gateway_core.catalog.presentation import presentation, unknown_settings
from gateway_core.catalog.runnable_factory import (
    agent_runnable,
    build_agent,
    is_async_function,
    required_parameters,
    workflow_runnable,
)
from gateway_core.catalog.runnables import AgentRunnable, InputKind, Runnable, WorkflowRunnable
from gateway_core.catalog.script_analysis import MAIN, Script
from gateway_core.catalog.unsupported_exports import refuse
from gateway_core.errors import LoadError

AGENT_NAMES = ("agent", "root_agent")
ENTRY_NAMES = ("starting_agent", "triage_agent", "start_agent", "main_agent")
FACTORY = "build_agent"
WORKFLOW = "run_workflow"
FUNCTIONS = ("stream", "run")
_VARIANT = re.compile(r"[A-Za-z0-9_.-]+")


@frozen
class ExportedAgent:
    """A runnable to serve."""

    runnable: Runnable
    export: str
    """The name of the export, such as `agent`, `build_agent()` or `main()`."""
    description: str = ""
    notes: tuple[str, ...] = ()
    """Notes for the operator about the choice."""
    variant: bool = False
    """Whether it is one of several agents of equal rank, each served under its own id."""


@frozen
class Exports:
    """The resolved exports of a module, with its settings and lifespan functions."""

    agents: tuple[ExportedAgent, ...]
    """One, or several agents of which none is marked as the one to serve."""
    settings: dict[str, Any] = field(factory=dict)
    """The module's `__gateway__`."""
    setup: Callable[[], Any] | None = None
    """The module's `setup`, called before its first run."""
    teardown: Callable[[], Any] | None = None
    """The module's `teardown`, called after its last run."""
    meta: dict[str, Any] = field(factory=dict)
    """Metadata for chat UIs; see `catalog/presentation.py`."""

    @property
    def reachable(self) -> list[Agent[Any]]:
        """Every agent that a run can reach, each once."""
        found = {id(agent): agent for each in self.agents for agent in each.runnable.agents}
        return list(found.values())


async def resolve(exported: object, source: str, *, name: str = "NAME", chosen: Chosen | None = None) -> Exports:
    """Resolve what to serve.

    Args:
        exported: A module, an Agent, a factory, or a workflow function.
        source: The location of the export, for errors.
        name: The agent's id, for notes and hints.
        chosen: The object that the operator chose; takes precedence.

    Raises:
        LoadError: The module exports nothing to serve.
        Exception: Any exception that a factory raises.
    """
    if not isinstance(exported, ModuleType):
        return Exports((await _from_object(exported, source),))
    names = {name: value for name, value in vars(exported).items() if not name.startswith("__")}
    context = names.get("build_context") if callable(names.get("build_context")) else None
    if chosen is not None:
        runnable = await choose(chosen, _agents_in(names), context, source)
        label = chosen.path if isinstance(chosen.value, Agent) else f"{chosen.path}()"
        found = [ExportedAgent(runnable, label)]
    else:
        found = await _from_module(exported, names, context, source, name)
    settings = getattr(exported, "__gateway__", {})
    if not isinstance(settings, dict):
        raise LoadError("`__gateway__` must be a dict", source=source, code="export")
    meta, unknown = presentation(settings, source), unknown_settings(settings)
    for each in found:
        _check_choice(settings, "memory", ("session",), each.runnable, source)
        _check_choice(settings, "client_tools", ("offer", "ignore"), each.runnable, source)
    fallback = _first_line(exported.__doc__)
    agents = tuple(
        evolve(
            each,
            description=str(settings.get("description") or _description(each.runnable) or fallback),
            notes=(*each.notes, *unknown),
        )
        for each in found
    )
    setup, teardown = (_lifespan_function(exported, name) for name in ("setup", "teardown"))
    return Exports(agents, settings, setup, teardown, meta)


def _check_choice(
    settings: dict[str, Any], name: str, supported: tuple[str, ...], runnable: Runnable, source: str
) -> None:
    value = settings.get(name)
    if value is not None and value not in supported:
        values = ", ".join(f'"{each}"' for each in supported)
        raise LoadError(
            f'`__gateway__["{name}"]` has the unsupported value {value!r}',
            source=source,
            hint=f"supported value{'s' if len(supported) > 1 else ''}: {values}",
            code="export",
        )
    if value == supported[0] and not isinstance(runnable, AgentRunnable):
        raise LoadError(
            f'`__gateway__["{name}"]` is not supported for workflows, because their own code starts the runs',
            source=source,
            hint=f"remove `{name}` from `__gateway__`",
            code="export",
        )


async def _from_module(
    module: ModuleType, names: dict[str, Any], context: Callable[..., Any] | None, source: str, name: str
) -> list[ExportedAgent]:
    agents = _agents_in(names)
    if is_async_function(names.get(WORKFLOW)):
        return [ExportedAgent(_workflow(names[WORKFLOW], agents, names.get("WorkflowInput")), f"{WORKFLOW}()")]
    for preferred in AGENT_NAMES:
        if isinstance(names.get(preferred), Agent):
            return [_only(module, names[preferred], preferred, context, name)]
        refuse(names.get(preferred), f"`{preferred}`", source)
    if inspect.isfunction(names.get(WORKFLOW)):
        # Without this error, an agent of the workflow would be served on its own.
        raise LoadError(
            f"`{WORKFLOW}` is a synchronous function, which would block the event loop",
            source=source,
            hint=f"define `async def {WORKFLOW}`, and `await Runner.run(…)` in it",
            code="export",
        )
    for function in FUNCTIONS:
        if _takes_messages(names.get(function), module):
            runnable = WorkflowRunnable(names[function], InputKind.MESSAGES, agents=tuple(agents))
            return [ExportedAgent(runnable, f"{function}()")]
    candidates = _distinct({name: value for name, value in names.items() if isinstance(value, Agent)})
    for preferred in ENTRY_NAMES:
        if preferred in candidates:
            return [_only(module, candidates[preferred], preferred, context, name)]
    entries = _entries(candidates)
    if len(entries) == 1:
        return [_only(module, candidates[entries[0]], entries[0], context, name)]
    script = Script(module)
    entries = _narrowed(entries, script)
    if len(entries) == 1:
        return [_only(module, candidates[entries[0]], entries[0], context, name)]
    if callable(names.get(FACTORY)):
        agent = await build_agent(names[FACTORY], FACTORY, source)
        return [ExportedAgent(agent_runnable(agent, context), f"{FACTORY}()")]
    if not entries:
        factories = [each for each in script.factories() if _is_own(module, each)]
        if len(factories) == 1:
            agent = await build_agent(names[factories[0]], factories[0], source)
            return [ExportedAgent(agent_runnable(agent, context), f"{factories[0]}()")]
    main = script.main()
    plan = script.plan(main)
    if plan.runs and plan.obstacle is None and _is_own(module, main):
        note = f"{main}() runs for each request, and its first run takes the user's message"
        return [ExportedAgent(workflow_runnable(names[main], agents), f"{main}()", notes=(note,))]
    if not candidates:
        candidates = _distinct(contained(names))
        entries = _entries(candidates)
        if len(entries) == 1:
            return [_only(module, candidates[entries[0]], entries[0], context, name)]
    if entries:
        return _tie({each: candidates[each] for each in entries}, context, source, name)
    for each, value in names.items():
        refuse(value, f"`{each}`", source)
    raise no_export(module, script, plan, names, source, name, (*AGENT_NAMES, *ENTRY_NAMES))


def _only(
    module: ModuleType, agent: Agent[Any], variable: str, context: Callable[..., Any] | None, name: str
) -> ExportedAgent:
    """Return the agent that the module marks, with a note if its main function also runs others."""
    notes: tuple[str, ...] = ()
    if inspect.isfunction(getattr(module, MAIN, None)):
        started = {*Script(module).plan(MAIN).started}
        if variable in started and (others := started - {variable}):
            cure = f'set [agents.{table_key(name)}] entry = "{MAIN}" to serve {MAIN}()'
            notes = (f"{MAIN}() also runs {', '.join(sorted(others))}, but only {variable} is served; {cure}",)
    return ExportedAgent(agent_runnable(agent, context), variable, notes=notes)


def _tie(
    agents: dict[str, Agent[Any]], context: Callable[..., Any] | None, source: str, name: str
) -> list[ExportedAgent]:
    """Return each of several agents of equal rank."""
    valid = {each: agent for each, agent in agents.items() if _VARIANT.fullmatch(each)}
    if not valid:
        raise LoadError(
            f"the module exports several agents: {', '.join(agents)}",
            source=source,
            hint="name the agent to serve `agent`",
            code="export",
        )
    first = next(iter(valid))
    cure = f'set [agents.{table_key(name)}] entry = "{first}" to serve one as {name}'
    notes = [f"the module exports several agents ({', '.join(agents)}), each served as {name}/VARIABLE; {cure}"]
    if left := [each for each in agents if each not in valid]:
        letters = "ASCII letters, digits, '_', '-' and '.'"
        notes.append(f"{', '.join(left)} is not served, because a model name consists of {letters}; rename it")
    return [
        ExportedAgent(agent_runnable(agent, context), each, notes=tuple(notes), variant=True)
        for each, agent in valid.items()
    ]


def _narrowed(names: Sequence[str], script: Script) -> list[str]:
    """Return the agents with which the script starts runs: the only one that `main` runs, or those outside tools."""
    helpers = script.helpers()
    remaining = [name for name in names if name not in helpers] or list(names)
    started = {name for name in script.plan(script.main()).started if name in remaining}
    return list(started) if len(started) == 1 else remaining


async def _from_object(exported: object, source: str) -> ExportedAgent:
    name = getattr(exported, "__name__", "the factory")
    if isinstance(exported, Agent):
        runnable: Runnable = agent_runnable(exported)
        return ExportedAgent(runnable, "Agent", _description(runnable))
    refuse(exported, "the exported object", source)
    if is_async_function(exported) and inspect.signature(exported).parameters:
        workflow = _workflow(exported, [])
        return ExportedAgent(workflow, f"{name}()", _description(workflow))
    if callable(exported):
        runnable = agent_runnable(await build_agent(exported, name, source))
        return ExportedAgent(runnable, f"{name}()", _description(runnable))
    raise LoadError(
        f"an object of type {type(exported).__name__} cannot be served",
        source=source,
        hint="point the entry point at a module, an Agent, a factory or a workflow function",
        code="export",
    )


def _workflow(function: Callable[..., Any], agents: list[Agent[Any]], input_type: object = None) -> WorkflowRunnable:
    first = next(iter(inspect.signature(function).parameters), None)
    return workflow_runnable(function, agents, parameter=first, input_type=input_type)


def _is_own(module: ModuleType, name: str) -> bool:
    """Whether a module defines a function without required arguments under this name."""
    function = getattr(module, name, None)
    if not inspect.isfunction(function) or function.__module__ != module.__name__:
        return False
    return not inspect.isasyncgenfunction(function) and not required_parameters(function)


def _agents_in(names: dict[str, Any]) -> list[Agent[Any]]:
    return [value for value in names.values() if isinstance(value, Agent)]


def _takes_messages(function: object, module: ModuleType) -> bool:
    """Whether the object is an async function defined in the module whose only required parameter is `messages`."""
    if not is_async_function(function):
        return False
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return function.__module__ == module.__name__ and [p.name for p in parameters] == ["messages"]


def _lifespan_function(module: ModuleType, name: str) -> Callable[[], Any] | None:
    """Return a function without parameters that the module itself defines under this name."""
    function = getattr(module, name, None)
    if not inspect.isfunction(function) or function.__module__ != module.__name__:
        return None
    return None if inspect.signature(function).parameters else function


def _distinct(agents: dict[str, Agent[Any]]) -> dict[str, Agent[Any]]:
    """Remove further names of the same agent."""
    first: dict[int, str] = {}
    for name, agent in agents.items():
        first.setdefault(id(agent), name)
    return {name: agents[name] for name in first.values()}


def _entries(candidates: dict[str, Agent[Any]]) -> list[str]:
    """Return the names of the agents that no other agent hands off to or uses as a tool."""
    targets = {id(near) for agent in candidates.values() for near in neighbors(agent) if near is not agent}
    return [name for name, agent in candidates.items() if id(agent) not in targets] or list(candidates)


def _description(runnable: Runnable) -> str:
    if isinstance(runnable, AgentRunnable):
        return _first_line(runnable.agent.handoff_description)
    return _first_line(runnable.function.__doc__) if isinstance(runnable, WorkflowRunnable) else runnable.text


def _first_line(text: str | None) -> str:
    return text.strip().partition("\n")[0].strip() if text else ""
