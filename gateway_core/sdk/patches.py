"""The SDK's check that no agent's tools change while it runs, at a cost that does not grow with how many runs are on.

At each turn the SDK compares the tools of every run of an agent with each other: with a thousand runs, a millisecond,
five times. As long as it has found no difference they are all the same, so that one of them stands for all.
"""

import operator
from collections.abc import Callable
from typing import Any

from agents.run_internal import agent_tool_configuration as _checks


def install() -> None:
    """Put it in the SDK's place; process-wide, and harmless to do twice. An SDK that checks otherwise is left alone."""
    whole = getattr(_checks, "_observe_tools", None)
    if whole is not None and not isinstance(whole, _Observing):
        _checks._observe_tools = _Observing(whole)


class _Observing:
    """Compares with the oldest run alone, unless that one has seen a difference already.

    What marks one run marks all that are on, so the oldest has every mark that any has; and where it is not marked as
    in conflict, whoever came later was compared with it and found to have the same tools.

    Args:
        whole: The SDK's own, which compares with all.
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
