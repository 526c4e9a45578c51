"""Finds the terminal runs of a workflow: the runs that no other run can follow. They produce the answer.

A workflow, such as an Agent Builder export, may classify, rewrite and check the input before it answers. Only the last
run on a path produces the answer, so that run can be streamed. The analysis is static: it reads the source and does not
call the function.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FrameType, ModuleType
from typing import Any

from gateway_core.catalog.agent_calls import Function, called_name, callers, functions_in, is_runner_call, reads_input
from gateway_core.catalog.safe_ast import parse


class TerminalRuns:
    """The terminal runs of one workflow function.

    Args:
        function: The workflow. If its source cannot be read, it has no terminal runs.
        one_message: Whether it receives one message, so that a loop around `input()` runs once.
    """

    def __init__(self, function: Callable[..., Any], *, one_message: bool = False) -> None:
        self._code: CodeType | None = getattr(function, "__code__", None)
        self._lines: set[int] = set()
        self._helper_lines: dict[str, set[int]] = {}
        if inspect.isasyncgenfunction(function):
            return  # its answer consists of the values that it yields
        try:
            source = textwrap.dedent(inspect.getsource(function))
            definition = parse(source).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            return
        if isinstance(definition, ast.AsyncFunctionDef | ast.FunctionDef) and self._code is not None:
            helpers = _functions_that_run(inspect.getmodule(function))

            def terminal(body: Sequence[ast.stmt]) -> set[int]:
                path = _Path(frozenset(helpers), one_message=one_message)
                path.before(body, after=False)
                calls = path.terminal
                return {line for call in calls for line in range(call.lineno, (call.end_lineno or call.lineno) + 1)}

            self._helper_lines = {name: terminal(helper.body) for name, helper in helpers.items()}
            offset = self._code.co_firstlineno - min(
                [definition.lineno, *(d.lineno for d in definition.decorator_list)]
            )
            self._lines = {line + offset for line in terminal(definition.body)}

    def includes(self, frame: FrameType | None) -> bool:
        """Whether a frame, or one of its callers, is at the call of a terminal run, as are the functions in between."""
        while frame is not None and self._code is not None:
            code = frame.f_code
            if code is self._code:
                return frame.f_lineno in self._lines
            is_helper = code.co_filename == self._code.co_filename and code.co_qualname in self._helper_lines
            if is_helper and frame.f_lineno not in self._helper_lines[code.co_qualname]:
                return False
            frame = frame.f_back
        return False


class _Path:
    """Walks statements backwards and tracks whether a run may follow each of them."""

    def __init__(self, helpers: frozenset[str], *, one_message: bool) -> None:
        self._helpers = helpers
        self._one_message = one_message
        self.terminal: list[ast.Call] = []

    def before(self, statements: Iterable[ast.stmt], *, after: bool) -> bool:
        """Whether a run may occur in or after these statements, given whether one may occur after them."""
        follows = after
        for statement in reversed(list(statements)):
            follows = self._statement(statement, follows)
        return follows

    def _statement(self, node: ast.stmt, after: bool) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return after
            case ast.Return():
                return self._calls(node.value, after=False)
            case ast.Raise():
                return False
            case ast.If():
                branches = [self.before(node.body, after=after), self.before(node.orelse, after=after)]
                return self._contains_run([node.test]) or any(branches)
            case ast.Match():
                cases = [self.before(case.body, after=after) for case in node.cases]
                return self._contains_run([node.subject]) or any(cases) or after
            case ast.While() if self._one_message and any(map(reads_input, ast.walk(node))):
                return self.before(node.body, after=after)
            case ast.For() | ast.AsyncFor() | ast.While():
                # A run in a loop may be followed by another iteration.
                repeated = self.before(node.body, after=True) and self._contains_run(node.body)
                return repeated or self.before(node.orelse, after=after) or after
            case ast.With() | ast.AsyncWith():
                return self.before(node.body, after=after)
            case ast.Try() | ast.TryStar():
                then = self.before(node.finalbody, after=after)
                handlers = [self.before(handler.body, after=then) for handler in node.handlers]
                otherwise = self.before(node.orelse, after=then)
                # A handler runs instead of the rest of the body, not after all of it.
                return self.before(node.body, after=otherwise) or any(handlers)
            case _:
                return self._calls(node, after=after)

    def _calls(self, node: ast.AST | None, *, after: bool) -> bool:
        """Whether a run may occur in or after a statement without branches."""
        calls = [] if node is None else [call for call in ast.walk(node) if self._is_run(call)]
        if len(calls) == 1 and not after:
            self.terminal.extend(call for call in calls if isinstance(call, ast.Call))
        return bool(calls) or after

    def _contains_run(self, nodes: Iterable[ast.AST]) -> bool:
        return any(self._is_run(node) for outer in nodes for node in ast.walk(outer))

    def _is_run(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and (is_runner_call(node) or called_name(node.func) in self._helpers)


def _functions_that_run(module: ModuleType | None) -> dict[str, Function]:
    """Return the module's functions that run agents, directly or through another of its functions, by name."""
    try:
        tree = parse(inspect.getsource(module)) if module is not None else ast.Module([], [])
    except (OSError, TypeError, SyntaxError):
        return {}
    functions = {name: function for name, function in functions_in(tree.body) if "." not in name}
    return {name: functions[name] for name in callers(functions, is_runner_call)}
