"""Shared by all tests: async tests run on asyncio, and no test waits longer than its limit."""

import ast
import asyncio
import inspect
import os
import sys
from typing import Any

import pytest

TEST_SECONDS = 90.0


def pytest_configure() -> None:
    """Prepare the process for the tests."""
    _remove_deadlines()
    _parse_in_turns()


def _remove_deadlines() -> None:
    """Let Hypothesis accept slow examples: its deadline of 0.2 s for each would fail tests on a busy machine."""
    try:
        from hypothesis import HealthCheck, settings
    except ImportError:  # not in every session
        return
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


def _parse_in_turns() -> None:
    """On Python 3.11, parsing in the gateway's threads and in pytest's own rewriting of assertions take turns.

    Otherwise either may die of `SystemError: AST constructor recursion depth mismatch`; see `catalog/safe_ast.py`.
    """
    if sys.version_info >= (3, 12) or getattr(ast.parse, "takes_turns", False):
        return
    from _pytest.assertion import rewrite

    from gateway_core.catalog.safe_ast import exclusively

    parse = ast.parse

    def parse_in_turn(*args: Any, **options: Any) -> Any:
        return exclusively(lambda: parse(*args, **options))

    def compile_in_turn(*args: Any, **options: Any) -> Any:
        return exclusively(lambda: compile(*args, **options))

    parse_in_turn.takes_turns = True  # type: ignore[attr-defined]
    ast.parse = parse_in_turn  # type: ignore[assignment]
    rewrite.compile = compile_in_turn  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests each in a new event loop, with a time limit."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def limited() -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await pyfuncitem.obj(**arguments)

    asyncio.run(limited())
    return True


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings of the machine that runs the tests."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "GATEWAY_")):
            monkeypatch.delenv(name)
