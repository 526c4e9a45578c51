"""Recognizes exceptions with which the script part of a module fails when it is imported: runs, model calls, input.

Such a part stands at the top level, below the agents, and is meant for `python agent.py`. The import ends there, and
the agents that are already defined can be served.
"""

import traceback
from collections.abc import Iterator
from pathlib import Path

from gateway_core.catalog.safe_ast import parse

CURE = "move this statement under `if __name__ == '__main__':`"


class RunAtImportError(RuntimeError):
    """A module runs an agent while it is imported."""

    def __init__(self) -> None:
        super().__init__("the module runs an agent when it is imported")


def script_failure(error: BaseException) -> tuple[BaseException, str] | None:
    """Return the failure of a script part that an exception is, or that it replaced, and the message for it."""
    for one in _chain(error):
        if isinstance(one, RunAtImportError):
            return one, str(one)
        if isinstance(one, EOFError):
            return one, "the module waits for input() when it is imported"
        # The class without importing the client.
        if any((cls.__module__.partition(".")[0], cls.__name__) == ("openai", "APIError") for cls in type(one).__mro__):
            return one, f"the module calls a model when it is imported ({type(one).__name__})"
    return None


def top_level(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return a stack that ends with the whole statement at the top level of a module that is the innermost one."""
    last = max((index for index, frame in enumerate(stack) if frame.name == "<module>"), default=None)
    if last is None:
        return stack
    frame = stack[last]
    line = _first_line(frame.filename, frame.lineno or 0)
    return traceback.StackSummary.from_list([*stack[:last], traceback.FrameSummary(frame.filename, line, frame.name)])


def _first_line(file: str, line: int) -> int:
    try:
        body = parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return line
    return next((node.lineno for node in body if node.lineno <= line <= (node.end_lineno or node.lineno)), line)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
