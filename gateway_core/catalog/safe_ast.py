"""Python source as a syntax tree and back, in any thread.

CPython 3.11 counts the depth of its tree conversion once for all: a second one that gets in between, from another
thread or from a finalizer that prints a traceback during a garbage collection, makes the first one fail with a
`SystemError`. Ours wait for each other, and are repeated when somebody else's got in. It looks at no tree.
"""

import ast
import threading
from collections.abc import Callable
from types import CodeType
from typing import TypeVar

T = TypeVar("T")

_TRIES = 20
# One that its holder may take again: a finalizer may come here as well.
_lock = threading.RLock()


def parse(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    """As `ast.parse`."""
    return _alone(lambda: ast.parse(source, filename))


def compile_tree(tree: ast.Module, filename: str) -> CodeType:
    """As `compile`, for a whole module."""
    code: CodeType = _alone(lambda: compile(tree, filename, "exec", dont_inherit=True))
    return code


def _alone(convert: Callable[[], T]) -> T:
    with _lock:
        for _ in range(_TRIES - 1):
            try:
                return convert()
            except SystemError:
                continue
        return convert()
