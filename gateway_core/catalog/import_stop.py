"""Recognizes exceptions with which the script part of a module fails when it is imported: runs, model calls, input.

Such a part stands at the top level, below the agents, and is meant for `python agent.py`. The import ends there, and
the agents that are already defined can be served.
"""

import traceback
from collections.abc import Iterator

CURE = "move this line under `if __name__ == '__main__':`"


class RunAtImportError(RuntimeError):
    """A module runs an agent while it is imported."""

    def __init__(self) -> None:
        super().__init__("the module runs an agent when it is imported")


def message_of(error: BaseException) -> str | None:
    """Return what the script part of a module did, if an exception (or one that it replaced) is due to that."""
    for one in _chain(error):
        if isinstance(one, RunAtImportError):
            return str(one)
        if isinstance(one, EOFError):
            return "the module waits for input() when it is imported"
        # The class without importing the client.
        if any((cls.__module__.partition(".")[0], cls.__name__) == ("openai", "APIError") for cls in type(one).__mro__):
            return f"the module calls a model when it is imported ({type(one).__name__})"
    return None


def top_level(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return the part of a stack up to the innermost statement at the top level of a module."""
    last = max((index for index, frame in enumerate(stack) if frame.name == "<module>"), default=len(stack) - 1)
    return traceback.StackSummary.from_list(stack[: last + 1])


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
