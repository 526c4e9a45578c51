"""Explains why a module exports nothing to serve: the place that creates its agent, and the cures that work for it."""

import ast
import inspect
import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from gateway_core.catalog.agents_nearby import how_to_export
from gateway_core.catalog.chosen_export import candidates
from gateway_core.catalog.script_analysis import Creation, Script
from gateway_core.catalog.script_plan import COMMAND_LINE, ScriptPlan
from gateway_core.errors import LoadError

HOW_TO = (
    "define at the top level an Agent named `agent`, a function `build_agent()` that returns an Agent, "
    "or a coroutine function `run_workflow`"
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def table_key(name: str) -> str:
    """Return an agent's id as the key of a table, quoted if necessary."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def no_export(
    module: ModuleType,
    script: Script,
    plan: ScriptPlan,
    names: Mapping[str, Any],
    source: str,
    name: str,
    preferred: tuple[str, ...],
) -> LoadError:
    """Return the error for a module without an export.

    Args:
        module: The module.
        script: Its source.
        plan: The plan of its main function.
        names: Its top-level names and their values.
        source: Its location.
        name: The agent's id, for hints.
        preferred: The names of variables that mark the agent to serve.
    """
    created = script.creations()
    obstacle = f"; {plan.obstacle}" if plan.obstacle else ""
    choices = candidates(module)
    if plan.obstacle and COMMAND_LINE in plan.obstacle:
        choices = [choice for choice in choices if choice != "main"]
    if created:
        best = _creation_of(created, choices)
        return LoadError(
            f"`Agent(…)` is created {best.place}{obstacle}",
            source=source,
            line=best.line,
            source_line=best.text,
            hint=_cures(best, script, choices, name),
            code="export",
        )
    if nearby := how_to_export(source, preferred):
        return LoadError(
            f"the module exports no Agent; {_top_level_names(names)}", source=source, hint=nearby, code="export"
        )
    if choices:
        entry = _preferred(None, choices)
        return LoadError(
            f"the module exports no Agent; {_top_level_names(names)}{obstacle}",
            source=source,
            hint=f'set [agents.{table_key(name)}] entry = "{entry}", or {HOW_TO}',
            code="export",
        )
    return LoadError(
        f"the module exports no Agent; {_top_level_names(names)}{obstacle}", source=source, hint=HOW_TO, code="export"
    )


def _creation_of(created: list[Creation], choices: list[str]) -> Creation:
    """Return the creation that a choice can serve, else the first."""
    return next((each for each in created if each.function in choices), created[0])


def _cures(creation: Creation, script: Script, choices: list[str], name: str) -> str:
    table = f"[agents.{table_key(name)}]"
    cures = []
    if not creation.function:
        cures.append(f'move the block into a function `main()`, and set {table} entry = "main"')
    elif entry := _preferred(creation.function, choices):
        cures.append(f'set {table} entry = "{entry}"')
    if _opens_server(script, creation):
        cures.append("create the server and the agent at module level, and pass the server in `mcp_servers=`")
    else:
        cures.append("move it to module level")
        cures.append("return it from `build_agent()`")
    return ", or ".join(cures)


def _preferred(function: str | None, choices: list[str]) -> str | None:
    """Return the choice that is nearest to a function: itself, `main`, or a method of the same class."""
    owner = function.partition(".")[0] + "." if function and "." in function else None
    of_class = [choice for choice in choices if owner and choice.startswith(owner)]
    order = [choice for choice in (function, "main") if choice in choices]
    return next(iter([*order, *of_class, *choices]), None)


def _opens_server(script: Script, creation: Creation) -> bool:
    function = script.functions.get(creation.function)
    nodes = ast.walk(function) if function is not None else iter(script.main_block())
    return any(
        isinstance(node, ast.Call) and any(keyword.arg == "mcp_servers" for keyword in node.keywords) for node in nodes
    )


def _top_level_names(names: Mapping[str, Any]) -> str:
    own = [f"{name} ({type(value).__name__})" for name, value in names.items() if not inspect.ismodule(value)]
    if not own:
        return "its top level is empty"
    return f"its top-level names are {', '.join(own[:8])}{' and more' if len(own) > 8 else ''}"
