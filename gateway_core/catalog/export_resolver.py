"""Resolves the runnable that a module, or the object of an entry point, exports.

Exports are identified by type as well as by name. If a module exports no agent, or several, the error lists the names
found. This module does not import modules, and calls no exported object except a factory.
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeGuard, get_args, get_type_hints

from agents import Agent
from attrs import field, frozen

from gateway_core.catalog.agent_graph import neighbors
from gateway_core.catalog.runnables import AgentRunnable, InputKind, Runnable, WorkflowRunnable
from gateway_core.catalog.safe_ast import parse
from gateway_core.catalog.unsupported_exports import refuse
from gateway_core.errors import LoadError

AGENT_NAMES = ("agent", "root_agent")
ENTRY_NAMES = ("starting_agent", "triage_agent", "start_agent", "main_agent")
FACTORY = "build_agent"
WORKFLOW = "run_workflow"
FUNCTIONS = ("stream", "run")
HOW_TO = (
    "define at the top level an Agent named `agent`, a function `build_agent()` that returns an Agent, "
    "or a coroutine function `run_workflow`"
)


@frozen
class ExportedAgent:
    """A resolved export with its description, settings and lifespan functions."""

    runnable: Runnable
    description: str = ""
    settings: dict[str, Any] = field(factory=dict)
    """The module's `__gateway__`."""
    setup: Callable[[], Any] | None = None
    """The module's `setup`, called before its first run."""
    teardown: Callable[[], Any] | None = None
    """The module's `teardown`, called after its last run."""


async def resolve(exported: object, source: str) -> ExportedAgent:
    """Resolve the runnable to serve.

    Args:
        exported: A module, an Agent, a factory, or a workflow function.
        source: The location of the export, for errors.

    Raises:
        LoadError: The module exports nothing to serve, or several agents of which none is marked as the one to serve.
        Exception: Any exception that a factory raises.
    """
    if isinstance(exported, ModuleType):
        runnable = await _from_module(exported, source)
        settings = getattr(exported, "__gateway__", {})
        if not isinstance(settings, dict):
            raise LoadError("`__gateway__` must be a dict", source=source, code="export")
        _check_memory(settings, runnable, source)
        description = settings.get("description") or _description(runnable) or _first_line(exported.__doc__)
        setup, teardown = (_lifespan_function(exported, name) for name in ("setup", "teardown"))
        return ExportedAgent(runnable, str(description), settings, setup, teardown)
    runnable = await _from_object(exported, source)
    return ExportedAgent(runnable, _description(runnable))


def _check_memory(settings: dict[str, Any], runnable: Runnable, source: str) -> None:
    memory = settings.get("memory")
    if memory not in (None, "session"):
        raise LoadError(
            f'`__gateway__["memory"]` has the unsupported value {memory!r}',
            source=source,
            hint='supported value: "session"',
            code="export",
        )
    if memory and not isinstance(runnable, AgentRunnable):
        raise LoadError(
            '`__gateway__["memory"]` is not supported for workflows, because their own code starts the runs',
            source=source,
            hint="remove `memory` from `__gateway__`",
            code="export",
        )


async def _from_module(module: ModuleType, source: str) -> Runnable:
    names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    if _is_async_function(names.get(WORKFLOW)):
        return _workflow(names[WORKFLOW], names.get("WorkflowInput"), _agents_in(names))
    context = names.get("build_context") if callable(names.get("build_context")) else None
    for name in AGENT_NAMES:
        if isinstance(names.get(name), Agent):
            return _agent(names[name], context)
        refuse(names.get(name), f"`{name}`", source)
    if inspect.isfunction(names.get(WORKFLOW)):
        # Without this error, an agent of the workflow would be served on its own.
        raise LoadError(
            f"`{WORKFLOW}` is a synchronous function, which would block the event loop",
            source=source,
            hint=f"define `async def {WORKFLOW}`, and `await Runner.run(…)` in it",
            code="export",
        )
    for name in FUNCTIONS:
        if _takes_messages(names.get(name), module):
            return WorkflowRunnable(names[name], InputKind.MESSAGES, agents=tuple(_agents_in(names)))
    candidates = _distinct({name: value for name, value in names.items() if isinstance(value, Agent)})
    for name in ENTRY_NAMES:
        if name in candidates:
            return _agent(candidates[name], context)
    entries = _entries(candidates)
    if len(entries) > 1:
        entries = starting_agents(module, entries)
    if len(entries) == 1:
        return _agent(candidates[entries[0]], context)
    if callable(names.get(FACTORY)):
        return _agent(await _build(names[FACTORY], FACTORY, source), context)
    if entries:
        raise LoadError(
            f"the module exports several agents: {', '.join(entries)}",
            source=source,
            hint="name the agent to serve `agent`",
            code="export",
        )
    for name, value in names.items():
        refuse(value, f"`{name}`", source)
    raise LoadError(
        f"the module exports no Agent; {_top_level_names(names)}", source=source, hint=HOW_TO, code="export"
    )


async def _from_object(exported: object, source: str) -> Runnable:
    if isinstance(exported, Agent):
        return _agent(exported, None)
    refuse(exported, "the exported object", source)
    if _is_async_function(exported) and inspect.signature(exported).parameters:
        return _workflow(exported, None, [])
    if callable(exported):
        return _agent(await _build(exported, getattr(exported, "__name__", "the factory"), source), None)
    raise LoadError(
        f"an object of type {type(exported).__name__} cannot be served",
        source=source,
        hint="point the entry point at a module, an Agent, a factory or a workflow function",
        code="export",
    )


async def _build(factory: Callable[..., Any], name: str, source: str) -> Agent[Any]:
    required = [p.name for p in inspect.signature(factory).parameters.values() if p.default is p.empty]
    if required:
        raise LoadError(
            f"{name}() must be callable without arguments; it requires {', '.join(required)}",
            source=source,
            code="export",
        )
    agent = factory()
    if inspect.isawaitable(agent):
        agent = await agent
    refuse(agent, f"the result of {name}()", source)
    if not isinstance(agent, Agent):
        raise LoadError(
            f"{name}() returned an object of type {type(agent).__name__}, not an Agent", source=source, code="export"
        )
    return agent


def _workflow(function: Callable[..., Any], input_type: object, agents: list[Agent[Any]]) -> WorkflowRunnable:
    if not inspect.isclass(input_type):
        input_type = _annotation_of_first_parameter(function)
    return WorkflowRunnable(function, input_type=input_type, agents=tuple(agents))


def _agents_in(names: dict[str, Any]) -> list[Agent[Any]]:
    return [value for value in names.values() if isinstance(value, Agent)]


def _agent(agent: Agent[Any], build_context: Callable[..., Any] | None) -> AgentRunnable:
    return AgentRunnable(agent, build_context or _context_type(agent))


def declared_context(agent: Agent[Any]) -> type | None:
    """Return the `T` of an `Agent[T]` if `T` is a class."""
    declared = next(iter(get_args(getattr(agent, "__orig_class__", None))), None)
    return declared if inspect.isclass(declared) else None


def _context_type(agent: Agent[Any]) -> Callable[..., Any] | None:
    """Return a factory for the `T` of an `Agent[T]` if `T` can be instantiated without arguments."""
    declared = declared_context(agent)
    if declared is None or inspect.isabstract(declared) or getattr(declared, "_is_protocol", False):
        return None
    try:
        parameters = inspect.signature(declared).parameters.values()
    except ValueError:  # types implemented in C may have no signature
        return None
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return None if required else lambda: declared()


def _is_async_function(function: object) -> TypeGuard[Callable[..., Any]]:
    """Whether the object is a coroutine function or an asynchronous generator function."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _takes_messages(function: object, module: ModuleType) -> bool:
    """Whether the object is an async function defined in the module whose only required parameter is `messages`."""
    if not _is_async_function(function):
        return False
    parameters = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return function.__module__ == module.__name__ and [p.name for p in parameters] == ["messages"]


def _lifespan_function(module: ModuleType, name: str) -> Callable[[], Any] | None:
    """Return a function without parameters that the module itself defines under this name."""
    function = getattr(module, name, None)
    if not inspect.isfunction(function) or function.__module__ != module.__name__:
        return None
    return None if inspect.signature(function).parameters else function


def _annotation_of_first_parameter(function: Callable[..., Any]) -> type | None:
    try:
        hints = get_type_hints(function)
    except Exception:  # if the annotation cannot be resolved, the function receives the text
        return None
    first = next(iter(inspect.signature(function).parameters), None)
    hint = hints.get(first) if first else None
    return hint if inspect.isclass(hint) and hint is not str else None


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


def _top_level_names(names: dict[str, Any]) -> str:
    own = [f"{name} ({type(value).__name__})" for name, value in names.items() if not inspect.ismodule(value)]
    if not own:
        return "its top level is empty"
    return f"its top-level names are {', '.join(own[:8])}{' and more' if len(own) > 8 else ''}"


def _description(runnable: Runnable) -> str:
    if isinstance(runnable, AgentRunnable):
        return _first_line(runnable.agent.handoff_description)
    return _first_line(runnable.function.__doc__) if isinstance(runnable, WorkflowRunnable) else runnable.text


def _first_line(text: str | None) -> str:
    return text.strip().partition("\n")[0].strip() if text else ""


_MAIN = "main"
_TOOL = "function_tool"


def starting_agents(module: ModuleType, names: Sequence[str]) -> list[str]:
    """Narrow several candidate agents down to those with which the module's source starts runs.

    Agents used only inside function tools are excluded. If several remain, the first agent that `main` passes to
    `Runner` wins.

    Args:
        module: The module that defines the candidates.
        names: The names of the candidates in the module.
    """
    try:
        tree = parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return list(names)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {name for function in functions if _is_tool(function) for name in _names(function)}
    remaining = [name for name in names if name not in helpers] or list(names)
    for function in functions:
        if len(remaining) > 1 and function.name == _MAIN:
            started = [name for name in _started(function) if name in remaining]
            remaining = started[:1] or remaining
    return remaining


def _is_tool(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(_TOOL in _names(decorator) for decorator in function.decorator_list)


def _started(function: ast.AST) -> Iterator[str]:
    """Yield the first arguments of calls such as `Runner.run(name, …)`, in source order."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and "Runner" in _names(node.func)]
    for call in sorted(calls, key=lambda call: call.lineno):
        if call.args and isinstance(call.args[0], ast.Name):
            yield call.args[0].id


def _names(node: ast.AST) -> set[str]:
    found = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return found | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
