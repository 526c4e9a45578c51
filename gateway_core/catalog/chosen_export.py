"""Finds the object that the operator chose with `[agents.NAME] entry`, such as `triage`, `team.triage` or `main`.

`locate` may import a further module of the agent's folder, so it blocks; `choose` makes the runnable.
"""

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from agents import Agent
from attrs import frozen

from gateway_core.catalog.runnable_factory import (
    agent_runnable,
    build_agent,
    required_parameters,
    takes_text,
    workflow_runnable,
)
from gateway_core.catalog.runnables import Runnable
from gateway_core.catalog.script_analysis import Script
from gateway_core.catalog.unsupported_exports import refuse
from gateway_core.config.values import did_you_mean
from gateway_core.errors import LoadError

# Names of unannotated parameters that are suggested for the user's text.
_TEXTS = frozenset(
    {
        "text",
        "query",
        "question",
        "message",
        "messages",
        "prompt",
        "input",
        "user_input",
        "user_message",
        "topic",
        "task",
    }
)


@frozen
class Chosen:
    """An object that `entry` names."""

    path: str
    value: Any
    owner: type | None = None
    """The class whose method the value is, if each run must create an instance."""


def locate(exported: object, path: str, source: str) -> Chosen:
    """Find the object that `entry` names. Blocking; may import a module of the agent's folder.

    Args:
        exported: The agent's module.
        path: The value of `entry`: names separated by dots.
        source: The location of the agent, for errors.

    Raises:
        LoadError: The object does not exist.
        Exception: Any exception that a property, a constructor or a further module raises.
    """
    if not isinstance(exported, ModuleType):
        raise LoadError(
            f'entry = "{path}" requires a module, but the entry point names an object of type '
            f"{type(exported).__name__}",
            source=source,
            hint="remove `entry`",
            code="export",
        )
    value: Any = exported
    owner: type | None = None
    for name in path.split("."):
        owner = None
        package = exported.__package__ if value is exported else getattr(value, "__path__", None) and value.__name__
        found = _submodule_or_attribute(value, name, package)
        if found is None and inspect.isclass(value) and not required_parameters(value):
            found = getattr(value(), name, None)
        elif inspect.isclass(value) and inspect.isfunction(inspect.getattr_static(value, name, None)):
            owner = value
        if found is None:
            raise LoadError(
                f"entry = \"{path}\": {_name_of(value)} has no attribute '{name}'",
                source=source,
                hint=_suggestion(path, candidates(exported)),
                code="export",
            )
        value = found
    return Chosen(path, value, owner)


def candidates(module: ModuleType) -> list[str]:
    """Return the values of `entry` that a module supports."""
    script = Script(module)
    agents = [name for name, value in vars(module).items() if isinstance(value, Agent)]
    agents += contained(vars(module))
    functions = [name for name in script.functions if script.has_run(name) or script.builds_agent(name)]
    return list(dict.fromkeys([*agents, *(name for name in functions if serves(module, script, name))]))


def contained(names: Mapping[str, Any]) -> dict[str, Agent[Any]]:
    """Return the agents in the dicts, lists and tuples of a module, by path, such as `DESK.sales` or `desk.0`."""
    found: dict[str, Agent[Any]] = {}
    for name, value in names.items():
        items = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list | tuple) else {}
        found |= {
            f"{name}.{key}": each for key, each in items.items() if isinstance(each, Agent) and "." not in str(key)
        }
    return found


def serves(module: ModuleType, script: Script, name: str) -> bool:
    """Whether `entry` can be the name of this function or method of the module."""
    first, _, method = name.partition(".")
    value: Any = getattr(module, first, None)
    if method:
        function = inspect.getattr_static(value, method, None) if inspect.isclass(value) else None
        if not inspect.isfunction(function) or method.startswith("__") or required_parameters(value):
            return False
        value, required = function, required_parameters(function, method=True)
    elif inspect.isfunction(value):
        required = required_parameters(value)
    else:
        return False
    if not required:
        return True
    text = required[0] in _TEXTS or value.__annotations__.get(required[0]) in (str, "str")
    return len(required) == 1 and script.has_run(name) and text


async def choose(
    chosen: Chosen, agents: list[Agent[Any]], build_context: Callable[..., Any] | None, source: str
) -> Runnable:
    """Return the runnable of the chosen object.

    Args:
        chosen: The object.
        agents: The agents at the module's top level.
        build_context: The module's function for the context of a run.
        source: The location of the agent, for errors.

    Raises:
        LoadError: The object cannot be served.
        Exception: Any exception that a factory raises.
    """
    value = chosen.value
    if isinstance(value, Agent):
        return agent_runnable(value, build_context)
    refuse(value, f"`{chosen.path}`", source)
    if chosen.owner is not None and (missing := required_parameters(chosen.owner)):
        raise _unsupported(chosen, f"{chosen.owner.__name__}() requires {', '.join(missing)}", source)
    if inspect.isclass(value):
        script = Script(inspect.getmodule(value))
        methods = [name for name in script.runners() if name.startswith(f"{value.__name__}.")]
        hint = f"name one of its methods or attributes: {', '.join(methods)}" if methods else None
        raise _unsupported(chosen, "it is a class", source, hint)
    if not inspect.isfunction(value) and not inspect.ismethod(value):
        raise _unsupported(chosen, f"it is an object of type {type(value).__name__}", source)
    required = required_parameters(value, method=chosen.owner is not None)
    if len(required) > 1:
        raise _unsupported(chosen, f"it requires {', '.join(required)}", source, "it may require one: the user's text")
    if required and (_builds_agent(value) or not takes_text(value, required[0])):
        raise _unsupported(chosen, f"the user's text cannot be passed as its parameter {required[0]}", source)
    if not required and chosen.owner is None and is_factory(value):
        return agent_runnable(await build_agent(value, chosen.path, source), build_context)
    return workflow_runnable(value, agents, owner=chosen.owner)


def is_factory(function: Callable[..., Any]) -> bool:
    """Whether a function without arguments returns an agent, and does not run one itself."""
    script, name = Script(inspect.getmodule(function)), getattr(function, "__qualname__", "")
    if name not in script.functions:
        return True
    return not script.has_run(name) and script.returns_value(name)


def _builds_agent(function: Callable[..., Any]) -> bool:
    return Script(inspect.getmodule(function)).builds_agent(getattr(function, "__qualname__", ""))


def _submodule_or_attribute(value: Any, name: str, package: str | None) -> Any:
    if isinstance(value, dict | list | tuple):
        return contained({"": value}).get(f".{name}")
    if not isinstance(value, ModuleType):
        return getattr(value, name, None)
    if name in vars(value):
        return vars(value)[name]
    # A module of the agent's folder, which the agent's own module need not import.
    try:
        found = bool(package) and name.isidentifier() and importlib.util.find_spec(f"{package}.{name}") is not None
    except (ImportError, ValueError):
        return None
    return importlib.import_module(f"{package}.{name}") if found else None


def _name_of(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__)).rpartition(".")[2]


def _suggestion(path: str, known: list[str]) -> str:
    hint = did_you_mean(path, known)
    return f"{hint} candidates: {', '.join(known)}" if hint.startswith("did you mean") else hint


def _unsupported(chosen: Chosen, reason: str, source: str, hint: str | None = None) -> LoadError:
    return LoadError(
        f'entry = "{chosen.path}" cannot be served: {reason}',
        source=source,
        hint=hint or "name an Agent, a function that returns one, or a function that runs one",
        code="export",
    )
