"""Reads the source of a module as a script: where it creates agents, and which of its functions run them.

The analysis is static: it does not call the functions.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType

from agents import Agent
from attrs import frozen

from gateway_core.catalog.agent_calls import (
    Function,
    called_name,
    callers,
    calls_in,
    created_class,
    functions_in,
    is_runner_call,
    parameters,
    reads_input,
)
from gateway_core.catalog.safe_ast import parse
from gateway_core.catalog.script_plan import COMMAND_LINE, PlanWalk, ScriptPlan

MAIN = "main"
MAIN_BLOCK = "if __name__ == '__main__':"
_TOOL = "function_tool"
_COMMAND_LINE = frozenset({"argv", "ArgumentParser"})


@frozen
class Creation:
    """A place in a function, a class or the main block that creates an agent."""

    line: int
    text: str
    """The text of the line."""
    function: str
    """The qualified name of the function, such as `main` or `Manager.run`; empty for the main block."""

    @property
    def place(self) -> str:
        """The place, for messages."""
        return f"inside {self.function}()" if self.function else f"under `{MAIN_BLOCK}`"


class Script:
    """The source of a module.

    Args:
        module: The module. If its source cannot be read, it has no functions.
    """

    def __init__(self, module: ModuleType | None) -> None:
        try:
            source = inspect.getsource(module) if module is not None else ""
            self._tree = parse(source)
        except (OSError, TypeError, SyntaxError):
            source, self._tree = "", ast.Module([], [])
        self._lines = source.splitlines()
        self._module = module
        self.functions: dict[str, Function] = dict(functions_in(self._tree.body))
        """The functions and methods of the module, by qualified name."""
        self._runners = callers(self.functions, is_runner_call)
        with_builtin = {name: each for name, each in self.functions.items() if "input" not in parameters(each)}
        self._readers = callers(with_builtin, reads_input)
        self._commands = callers(self.functions, lambda node: called_name(node) in _COMMAND_LINE)

    def creations(self) -> list[Creation]:
        """Return the places below the top level that create an agent, in source order; tools are excluded."""
        found = []
        for name, function in self.functions.items():
            if not _is_tool(function):
                found += [self._creation(call, name) for call in calls_in(function.body) if self._is_agent_class(call)]
        block = self.main_block()
        found += [self._creation(call, "") for call in calls_in(block) if self._is_agent_class(call)]
        return sorted(found, key=lambda creation: creation.line)

    def main_block(self) -> list[ast.stmt]:
        """Return the statements under `if __name__ == "__main__":`."""
        return [
            statement
            for node in self._tree.body
            if isinstance(node, ast.If) and "__name__" in _names(node.test)
            for statement in node.body
        ]

    def text(self, line: int) -> str:
        """Return the text of a line."""
        return self._lines[line - 1].strip() if 0 < line <= len(self._lines) else ""

    def helpers(self) -> set[str]:
        """Return the names that functions of tools use."""
        return {name for function in self.functions.values() if _is_tool(function) for name in _names(function)}

    def has_run(self, name: str) -> bool:
        """Whether a function runs agents, directly or through another function of the module."""
        return name.rpartition(".")[2] in self._runners and name in self.functions

    def runners(self) -> list[str]:
        """Return the qualified names of the functions that run agents, without tools."""
        return [name for name in self.functions if self.has_run(name) and not _is_tool(self.functions[name])]

    def returns_value(self, name: str) -> bool:
        """Whether a function has a `return` with a value."""
        function = self.functions.get(name)
        nodes = _own_nodes(function.body) if function else ()
        return any(isinstance(node, ast.Return) and node.value is not None for node in nodes)

    def builds_agent(self, name: str) -> bool:
        """Whether a function returns an agent that it creates, and runs none."""
        function = self.functions.get(name)
        if function is None or self.has_run(name) or _is_tool(function):
            return False
        nodes = list(_own_nodes(function.body))
        made = {
            target.id
            for node in nodes
            if isinstance(node, ast.Assign) and self._is_agent_class(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        returned = [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]
        return bool(returned) and all(
            self._is_agent_class(value) or (isinstance(value, ast.Name) and value.id in made) for value in returned
        )

    def factories(self) -> list[str]:
        """Return the functions that build an agent, without those that build one for another of them."""
        found = [name for name in self.functions if self.builds_agent(name)]
        calls = {name: {called_name(call.func) for call in calls_in(self.functions[name].body)} for name in found}
        return [name for name in found if not any(name in calls[other] for other in found if other != name)]

    def main(self) -> str:
        """Return the name of the script's main function: `main`, or the one that the main block calls."""
        if MAIN in self.functions:
            return MAIN
        called = {
            name
            for call in calls_in(self.main_block())
            if not call.args and not call.keywords and (name := called_name(call.func)) and self.has_run(name)
        }
        return called.pop() if len(called) == 1 else MAIN

    def plan(self, name: str) -> ScriptPlan:
        """Return the plan of a function."""
        walk = PlanWalk(self.functions, self._runners, self._readers)
        function = self.functions.get(name)
        if function is not None:
            if name.rpartition(".")[2] in self._commands:
                walk.plan.obstacle = f"{name}() {COMMAND_LINE}"
            walk.function(name, function, seen=False, dependent=False)
        return walk.plan

    def _creation(self, call: ast.AST, function: str) -> Creation:
        line = getattr(call, "lineno", 0)
        return Creation(line, self.text(line), function)

    def _is_agent_class(self, node: ast.AST) -> bool:
        name = created_class(node)
        known = getattr(self._module, name or "", None)
        return name == "Agent" or (inspect.isclass(known) and issubclass(known, Agent))


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a function without those of functions that it defines."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own_nodes(ast.iter_child_nodes(node))


def _is_tool(function: Function) -> bool:
    return any(_TOOL in _names(decorator) for decorator in function.decorator_list)


def _names(node: ast.AST) -> set[str]:
    found = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return found | {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
