"""Conversions of syntax trees disturb each other neither across threads nor from finalizers."""

import ast
import gc
import threading

import pytest

from gateway_core.catalog.safe_ast import compile_tree, exclusively, parse


class Garbage:
    """An object in a cycle: only a collection finalizes it."""

    def __init__(self, finalized):
        self.me, self.finalized = self, finalized

    def __del__(self):
        self.finalized.append(threading.current_thread())


@pytest.fixture
def eager_collection():
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)


def test_no_finalizer_runs_during_a_conversion(eager_collection):
    finalized = []

    def convert():
        for _ in range(100):
            Garbage(finalized)
        return len(finalized)

    before = len(finalized)
    assert exclusively(convert) == before
    assert gc.isenabled()
    gc.collect()
    assert len(finalized) == 100


def test_a_conversion_that_was_disturbed_is_repeated():
    attempts = []

    def convert():
        attempts.append(1)
        if len(attempts) < 3:
            raise SystemError("AST constructor recursion depth mismatch")
        return "done"

    assert exclusively(convert) == "done"
    assert len(attempts) == 3
    assert gc.isenabled()


def test_it_parses_and_compiles_as_python_does():
    tree = parse("value = 1 + 1", "a.py")
    assert ast.dump(tree) == ast.dump(ast.parse("value = 1 + 1"))
    names = {}
    exec(compile_tree(tree, "a.py"), names)
    assert names["value"] == 2
    with pytest.raises(SyntaxError):
        parse("value =")
    assert gc.isenabled()
