"""Determines the type of the context that an agent and its functions expect, and how to create it.

The type is the `T` of an `Agent[T]`, and of a `RunContextWrapper[T]` that tools, instructions, guardrails and
conditions declare as their first parameter. Nothing is called.
"""

import inspect
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from agents import Agent, RunContextWrapper

from gateway_core.catalog.agent_graph import reachable
from gateway_core.types import RunContext

# Declared by functions that do not depend on the author's context.
_ANY = frozenset({*RunContext.__mro__, NoneType, Any})  # `Any` is a class
_SIMPLE = (dict, list, set)


def context_types(agent: Agent[Any]) -> list[type]:
    """Return the types that an agent and those that it can reach expect; without the bases of others among them.

    The type of the agent itself is the only one, if it declares one.
    """
    if (own := _of_agent(agent)) is not None:
        return [own]
    found: list[type] = []
    for each in reachable(agent):
        declared = [_of_agent(each), *map(_of_function, _functions(each))]
        found += [one for one in declared if one is not None and one not in _ANY and one not in found]
    return [one for one in found if not any(other is not one and issubclass(other, one) for other in found)]


def context_factory(agent: Agent[Any]) -> Callable[[], Any] | None:
    """Return a factory of the context, if there is one type, which can be instantiated without arguments."""
    types = context_types(agent)
    if len(types) != 1 or types[0] in _ANY:
        return None
    [declared] = types
    if declared in _SIMPLE:
        return lambda: declared()
    if inspect.isabstract(declared) or getattr(declared, "_is_protocol", False):
        return None
    try:
        parameters = inspect.signature(declared).parameters.values()
    except ValueError:  # types implemented in C may have no signature
        return None
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    return None if required else lambda: declared()


def context_warnings(agent: Agent[Any]) -> list[str]:
    """Return a warning for operators if the expected context cannot be created."""
    types = [one for one in context_types(agent) if one not in _ANY]
    if not types or context_factory(agent) is not None:
        return []
    cure = "define `build_context(run)`"
    if len(types) > 1:
        names = ", ".join(one.__name__ for one in types)
        return [f"its tools and agents expect several context types ({names}), and receive none of them; {cure}"]
    return [
        f"its context type {types[0].__name__} cannot be created without arguments, so its tools receive none; {cure}"
    ]


def _functions(agent: Agent[Any]) -> Iterator[Any]:
    """Yield the author's functions of an agent that receive the context first."""
    yield agent.instructions
    yield from (guardrail.guardrail_function for guardrail in agent.input_guardrails)
    yield from (guardrail.guardrail_function for guardrail in agent.output_guardrails)
    for tool in agent.tools:
        yield getattr(tool, "__wrapped__", None)
        yield getattr(tool, "is_enabled", None)
    yield from (getattr(handoff, "is_enabled", None) for handoff in agent.handoffs)


def _of_agent(agent: Agent[Any]) -> type | None:
    return _as_class(next(iter(get_args(getattr(agent, "__orig_class__", None))), None))


def _of_function(function: Any) -> type | None:
    if not callable(function):
        return None
    try:
        first = next(iter(inspect.signature(function).parameters), "")
        hint = get_type_hints(function).get(first)
    except Exception:  # the annotation cannot be resolved
        return None
    origin = get_origin(hint)
    if not (inspect.isclass(origin) and issubclass(origin, RunContextWrapper)):
        return None
    return _as_class(next(iter(get_args(hint)), None))


def _as_class(hint: Any) -> type | None:
    """Return a class, or the only class in `T | None`."""
    if not inspect.isclass(hint) or get_args(hint):
        origin = get_origin(hint)
        choices = [one for one in get_args(hint) if one is not NoneType]
        hint = origin if origin in _SIMPLE else choices[0] if len(choices) == 1 else None
    return hint if inspect.isclass(hint) else None
