"""Which of several agents in a module is the one that a person starts with, by the module's own source?

An agent that a tool's function uses is a helper; one that `main` runs first is where it starts. Nothing is executed.
"""

import ast
import inspect
from collections.abc import Iterator, Sequence
from types import ModuleType

from gateway_core.source_code import parse

_MAIN = "main"
_TOOL = "function_tool"


def agents_to_start(module: ModuleType, names: Sequence[str]) -> list[str]:
    """The candidates that are left.

    Args:
        module: Where they are.
        names: The candidates' names in the module.
    """
    try:
        tree = parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return list(names)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    helpers = {name for function in functions if _is_tool(function) for name in _names(function)}
    left = [name for name in names if name not in helpers] or list(names)
    for function in functions:
        if len(left) > 1 and function.name == _MAIN:
            started = [name for name in _started(function) if name in left]
            left = started[:1] or left
    return left


def _is_tool(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(_TOOL in _names(decorator) for decorator in function.decorator_list)


def _started(function: ast.AST) -> Iterator[str]:
    """The names that stand first in calls such as `Runner.run(name, …)`, in the order of the source."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and "Runner" in _names(node.func)]
    for call in sorted(calls, key=lambda call: call.lineno):
        if call.args and isinstance(call.args[0], ast.Name):
            yield call.args[0].id


def _names(node: ast.AST) -> set[str]:
    found = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return found | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
