"""Recognizes, in the source of a module, the calls that create and run agents.

Each analysis of agents' source code uses these functions: they need only the syntax tree.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping

Function = ast.FunctionDef | ast.AsyncFunctionDef

_RUNS = frozenset({"run", "run_streamed", "run_sync"})
# The SDK's chat loop.
_DEMO_LOOP = "run_demo_loop"


def is_runner_call(node: ast.AST) -> bool:
    """Whether a node is a call that starts a run."""
    if not isinstance(node, ast.Call):
        return False
    name = called_name(node.func)
    if isinstance(node.func, ast.Attribute) and name in _RUNS:
        return called_name(node.func.value) == "Runner"
    return name == _DEMO_LOOP


def reads_input(node: ast.AST) -> bool:
    """Whether a node is the function `input`, called or passed to another one."""
    return isinstance(node, ast.Name) and node.id == "input" and isinstance(node.ctx, ast.Load)


def called_name(node: ast.expr) -> str | None:
    """Return the last part of a called function's name."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
    return None


def created_class(node: ast.AST | None) -> str | None:
    """Return the name of the class that a call may create an object of, such as `Agent` for `Agent[Context](...)`."""
    if not isinstance(node, ast.Call):
        return None
    return called_name(node.func.value if isinstance(node.func, ast.Subscript) else node.func)


def parameters(function: Function) -> set[str]:
    """Return the names of a function's parameters."""
    return {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}


def calls_in(body: Iterable[ast.AST]) -> Iterator[ast.Call]:
    """Yield every call in some statements or expressions."""
    return (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Call))


def functions_in(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Yield the functions and methods that statements define, with their qualified names, such as `Manager.run`."""
    for node in body:
        if isinstance(node, Function):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef) and not prefix:
            yield from functions_in(node.body, f"{node.name}.")


def callers(functions: Mapping[str, Function], wanted: Callable[[ast.expr], bool]) -> frozenset[str]:
    """Return the names of the functions with a wanted expression, in them or in functions that they call.

    Args:
        functions: The functions, by qualified name.
        wanted: Whether an expression is wanted.

    Returns:
        The last parts of their names.
    """
    expressions = {
        name: [node for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.expr)]
        for name, function in functions.items()
    }
    found: set[str] = set()
    while True:
        more = {
            name.rpartition(".")[2]
            for name, own in expressions.items()
            if name.rpartition(".")[2] not in found
            and any(wanted(node) or (isinstance(node, ast.Call) and called_name(node.func) in found) for node in own)
        }
        if not more:
            return frozenset(found)
        found |= more
