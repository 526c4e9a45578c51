"""Patches the SDK's check for tools that change during a run, so that its cost does not depend on the number of runs.

At each turn, the SDK compares the tools of an agent across all of its active runs. With 1,000 runs, this takes 1 ms,
five times. While no difference was found, all runs have the same tools, so a comparison with one of them is sufficient.
"""

import operator
from collections.abc import Callable
from typing import Any

from agents.run_internal import agent_tool_configuration as _checks


def install() -> None:
    """Install the patch for the process. Idempotent."""
    if not isinstance(_checks._observe_tools, _Observing):
        _checks._observe_tools = _Observing(_checks._observe_tools)


class _Observing:
    """Compares with the oldest run only, unless that run has recorded a difference.

    A mark is set on all active runs, so the oldest one has every mark. If it is not marked as conflicted, each later
    run was compared with it and has the same tools.

    Args:
        whole: The SDK's function, which compares with all runs.
    """

    def __init__(self, whole: Callable[[list[Any], tuple[Any, ...]], None]) -> None:
        self._whole = whole

    def __call__(self, active: list[Any], tools: tuple[Any, ...]) -> None:
        if len(active) > 1:
            oldest = active[0]
            if oldest.conflicted or oldest.tools_assigned or not _same(oldest.initial_tools, tools):
                self._whole(active, tools)


def _same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))
