"""`ast.parse` and `compile` of a tree, safe to call in any thread.

CPython 3.11 keeps one recursion counter for all conversions of a syntax tree. A second conversion that starts during a
first one, in another thread or in a finalizer, makes the first fail with `SystemError: AST constructor recursion depth
mismatch`. A conversion yields to other threads only when a garbage collection runs Python code, so collection is
suspended during one; conversions of this module wait for each other, and are retried when foreign code interferes.
"""

import ast
import gc
import threading
from collections.abc import Callable
from types import CodeType
from typing import TypeVar

T = TypeVar("T")

_ATTEMPTS = 20
# Reentrant: a finalizer that runs in the same thread may parse, too.
_lock = threading.RLock()


def parse(source: str | bytes, filename: str = "<unknown>") -> ast.Module:
    """Parse a module's source, as `ast.parse` does."""
    return exclusively(lambda: ast.parse(source, filename))


def compile_tree(tree: ast.Module, filename: str) -> CodeType:
    """Compile a module's tree, as `compile` does."""
    code: CodeType = exclusively(lambda: compile(tree, filename, "exec", dont_inherit=True))
    return code


def exclusively(convert: Callable[[], T]) -> T:
    """Run a conversion while no other one of this module runs.

    Args:
        convert: Calls `ast.parse` or `compile`.
    """
    with _lock:
        for _ in range(_ATTEMPTS - 1):
            try:
                return _without_collection(convert)
            except SystemError:
                continue
        return _without_collection(convert)


def _without_collection(convert: Callable[[], T]) -> T:
    enabled = gc.isenabled()
    gc.disable()
    try:
        return convert()
    finally:
        if enabled:
            gc.enable()
