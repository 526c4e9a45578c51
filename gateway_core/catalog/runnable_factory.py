"""Creates runnables from exported objects: agents, factories and functions that run agents."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, get_type_hints

from agents import Agent

from gateway_core.catalog.context_types import context_factory
from gateway_core.catalog.runnables import AgentRunnable, InputKind, WorkflowRunnable
from gateway_core.catalog.unsupported_exports import refuse
from gateway_core.errors import LoadError


def agent_runnable(agent: Agent[Any], build_context: Callable[..., Any] | None = None) -> AgentRunnable:
    """Return the runnable of an agent.

    Args:
        agent: The agent.
        build_context: The module's function for the context of a run. Default: the agent's context type.
    """
    return AgentRunnable(agent, build_context or context_factory(agent))


async def build_agent(factory: Callable[..., Any], name: str, source: str) -> Agent[Any]:
    """Call a function that returns an agent.

    Raises:
        LoadError: It requires arguments, returns another object, or calls `exit()`.
        Exception: Any exception that the function raises.
    """
    if required := required_parameters(factory):
        raise LoadError(
            f"{name}() must be callable without arguments; it requires {', '.join(required)}",
            source=source,
            code="export",
        )
    try:
        agent = factory()
        if inspect.isawaitable(agent):
            agent = await agent
    except (SystemExit, KeyboardInterrupt) as error:
        raise LoadError(f"{name}() raises {type(error).__name__}", source=source, code="export") from error
    refuse(agent, f"the result of {name}()", source)
    if not isinstance(agent, Agent):
        raise LoadError(
            f"{name}() returned an object of type {type(agent).__name__}, not an Agent", source=source, code="export"
        )
    return agent


def workflow_runnable(
    function: Callable[..., Any],
    agents: Iterable[Agent[Any]] = (),
    *,
    parameter: str | None = None,
    input_type: Any = None,
    owner: type | None = None,
) -> WorkflowRunnable:
    """Return the runnable of a function that receives the user's text, or of a script's function without arguments.

    Args:
        function: The function; for a method, the plain function.
        agents: The agents at the module's top level.
        parameter: The name of the parameter that receives the text. Default: its required one, if any. If it is called
            `messages`, the required one receives the conversation.
        input_type: The type of its argument. Default: the annotation of its parameter.
        owner: The class of a method.
    """
    if parameter is None:
        required = required_parameters(function, method=owner is not None)
        takes = InputKind.TEXT if required else InputKind.SCRIPT
        if required == ["messages"]:
            takes = InputKind.MESSAGES
        parameter = required[0] if takes is InputKind.TEXT else None
    else:
        takes = InputKind.TEXT
    if parameter is not None and not inspect.isclass(input_type):
        input_type = _annotation_of(function, parameter)
    return WorkflowRunnable(function, takes, input_type, tuple(agents), owner)


def required_parameters(function: Callable[..., Any], *, method: bool = False) -> list[str]:
    """Return the names of the parameters that a caller must pass.

    Args:
        function: A function or a class.
        method: Whether to omit the first parameter.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[1 if method else 0 :]
    except ValueError:  # objects implemented in C may have no signature
        return []
    optional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def takes_text(function: Callable[..., Any], parameter: str) -> bool:
    """Whether the user's text can be passed as this parameter: as it is, or as a field of its type."""
    hint = _annotation_of(function, parameter)
    return hint is None or any(
        hasattr(hint, mark) for mark in ("__dataclass_fields__", "__attrs_attrs__", "model_fields")
    )


def is_async_function(function: object) -> TypeGuard[Callable[..., Any]]:
    """Whether the object is a coroutine function or an asynchronous generator function."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _annotation_of(function: Callable[..., Any], parameter: str) -> type | None:
    try:
        hints = get_type_hints(function)
    except Exception:  # if the annotation cannot be resolved, the function receives the text
        return None
    hint = hints.get(parameter)
    return hint if inspect.isclass(hint) and hint is not str else None
