"""Follows the runs of a function in their order, through the functions of the module that it calls.

A function such as `main` can serve a chat if its first run, or its first `input()`, takes the user's message, and no
later run starts with a text of the script's own. The analysis is static.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from gateway_core.catalog.agent_calls import Function, called_name, calls_in, is_runner_call, parameters, reads_input

_Loop = ast.For | ast.AsyncFor | ast.While
_REPEATING = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_MAX_CALLS = 300
COMMAND_LINE = "reads the command line"


@define
class ScriptPlan:
    """The runs of a function."""

    runs: int = 0
    """Number of calls in the source that start a run, including those in functions that it calls."""
    started: list[str] = field(factory=list)
    """The names of the agents that its runs start with, in source order."""
    obstacle: str | None = None
    """Why the function is not served unless the operator chooses it."""


class PlanWalk:
    """Follows the runs of a function in their order, through the functions that it calls."""

    def __init__(self, functions: Mapping[str, Function], runners: frozenset[str], readers: frozenset[str]) -> None:
        self.plan = ScriptPlan()
        self._functions = functions
        self._runners = runners
        self._readers = readers
        self._active: list[str] = []
        self._inputs = 0
        self._in_chat_loop = False
        self._walked = 0

    def function(self, name: str, function: Function, *, seen: bool, dependent: bool) -> bool:
        """Walk a function. Returns whether a run has occurred after it.

        Args:
            name: Its qualified name.
            function: The function.
            seen: Whether a run has occurred before it.
            dependent: Whether its arguments depend on the result of an earlier run.
        """
        self._walked += 1
        if name in self._active or self._walked > _MAX_CALLS:
            return seen
        self._active.append(name)
        results = self._results(function, parameters(function) - {"self"} if dependent else set())
        seen = self._statements(function.body, seen, results)
        self._active.pop()
        return seen

    def _statements(self, body: Sequence[ast.stmt], seen: bool, results: set[str]) -> bool:
        for statement in body:
            seen = self._statement(statement, seen, results)
        return seen

    def _statement(self, node: ast.stmt, seen: bool, results: set[str]) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return seen
            case ast.If():
                before = self._expressions([node.test], seen, results)
                return self._branches([node.body, node.orelse], before, results)
            case ast.Match():
                before = self._expressions([node.subject], seen, results)
                return self._branches([case.body for case in node.cases], before, results)
            case ast.For() | ast.AsyncFor() | ast.While():
                head = node.test if isinstance(node, ast.While) else node.iter
                return self._loop(node, self._expressions([head], seen, results), results)
            case ast.With() | ast.AsyncWith():
                seen = self._expressions([item.context_expr for item in node.items], seen, results)
                return self._statements(node.body, seen, results)
            case ast.Try() | ast.TryStar():
                after = self._statements([*node.body, *node.orelse], seen, results)
                handled = self._branches([handler.body for handler in node.handlers], seen, results)
                return self._statements(node.finalbody, after or handled, results)
            case _:
                return self._expressions([node], seen, results)

    def _branches(self, bodies: Iterable[Sequence[ast.stmt]], seen: bool, results: set[str]) -> bool:
        return any([seen, *(self._statements(body, seen, results) for body in bodies)])

    def _loop(self, node: _Loop, seen: bool, results: set[str]) -> bool:
        if not seen and not self._in_chat_loop and self._reads_input(node):
            # The second `input()` ends the loop, so it runs once, before or after its `input()`.
            self._in_chat_loop = True
            after = self._statements(node.body, seen, results)
            self._in_chat_loop = False
            return after
        after = self._statements(node.body, seen, results)
        if after and not self._in_chat_loop and self._contains_run(node.body):
            counted, names = self.plan.runs, list(self.plan.started)
            self._statements(node.body, True, results)
            self.plan.runs, self.plan.started = counted + 1, names
        return self._statements(node.orelse, after, results)

    def _expressions(self, nodes: Iterable[ast.AST], seen: bool, results: set[str]) -> bool:
        after = seen
        for outer in nodes:
            repeated = {
                id(inner) for node in ast.walk(outer) if isinstance(node, _REPEATING) for inner in ast.walk(node)
            }
            for node in ast.walk(outer):
                if reads_input(node) and "input" not in parameters(self._functions[self._active[-1]]):
                    self._input(node, seen)
                elif isinstance(node, ast.Call):
                    after = self._call(node, seen or id(node) in repeated, results) or after
        return after

    def _input(self, node: ast.AST, seen: bool) -> None:
        if seen and self._in_chat_loop:
            return  # it asks for the next message
        self._inputs += 1
        if seen:
            self._obstruct(f"{self._active[0]}() calls input() after a run (line {getattr(node, 'lineno', 0)})")
        elif self._inputs > 1:
            self._obstruct(f"{self._active[0]}() calls input() in several places")

    def _call(self, call: ast.Call, seen: bool, results: set[str]) -> bool:
        """Walk one call. Returns whether it starts a run."""
        if is_runner_call(call):
            self.plan.runs += 1
            agent, given = argument(call, 0, "starting_agent"), argument(call, 1, "input")
            if isinstance(agent, ast.Name):
                self.plan.started.append(agent.id)
            if seen and (given is None or not self._depends(given, results)):
                self._obstruct(f"{self._active[0]}() starts a further run with its own text (line {call.lineno})")
            return True
        name = called_name(call.func)
        if name not in self._runners and name not in self._readers:
            return False
        dependent = any(self._depends(given, results) for given in (*call.args, *(k.value for k in call.keywords)))
        for qualified, function in self._functions.items():
            if qualified.rpartition(".")[2] == name:
                return self.function(qualified, function, seen=seen, dependent=dependent)
        return False

    def _obstruct(self, reason: str) -> None:
        self.plan.obstacle = self.plan.obstacle or reason

    def _reads_input(self, node: ast.AST) -> bool:
        return any(reads_input(each) for each in ast.walk(node)) or any(
            called_name(call.func) in self._readers for call in calls_in([node])
        )

    def _contains_run(self, body: Sequence[ast.stmt]) -> bool:
        return any(is_runner_call(call) or called_name(call.func) in self._runners for call in calls_in(body))

    def _results(self, function: Function, known: set[str]) -> set[str]:
        """Return the variables of a function that depend on the result of a run."""
        results = set(known)
        nodes = list(ast.walk(function))
        while True:
            before = len(results)
            for node in nodes:
                for target, value in _assigned(node):
                    if value is not None and self._depends(value, results):
                        results |= _stored(target)
            if len(results) == before:
                return results

    def _depends(self, value: ast.AST, results: set[str]) -> bool:
        for node in ast.walk(value):
            if isinstance(node, ast.Call) and (is_runner_call(node) or called_name(node.func) in self._runners):
                return True
            if isinstance(node, ast.Name | ast.Attribute) and _variable(node) in results:
                return True
        return False


def argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    """Return an argument of a call, given by position or by name."""
    if len(call.args) > position:
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _assigned(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    match node:
        case ast.Assign():
            for target in node.targets:
                yield target, node.value
        case ast.AnnAssign() | ast.AugAssign() | ast.NamedExpr():
            yield node.target, node.value
        case ast.For() | ast.AsyncFor() | ast.comprehension():
            yield node.target, node.iter
        case ast.withitem() if node.optional_vars is not None:
            yield node.optional_vars, node.context_expr
        case ast.Call(func=ast.Attribute(value=receiver, attr="append" | "extend" | "insert" | "add" | "update")):
            for given in node.args:
                yield receiver, given


def _stored(target: ast.AST) -> set[str]:
    if isinstance(target, ast.Tuple | ast.List):
        return {name for each in target.elts for name in _stored(each)}
    if isinstance(target, ast.Subscript | ast.Starred):
        return _stored(target.value)
    name = _variable(target)
    return {name} if name else set()


def _variable(node: ast.AST) -> str | None:
    """Return the name of a variable; `self.x` for an attribute of `self`."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute(value=ast.Name(id="self")):
            return f"self.{node.attr}"
    return None
